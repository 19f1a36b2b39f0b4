//! Looks at the process every second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    estimate::{Bound, Estimator, Figures, Sample},
    sample,
};
use crate::{app::Condition, config::Limits, events::Hub};

/// How often the process is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is seen whether a turn comes late.
const TURN: Duration = Duration::from_millis(100);

/// What the node can carry. A handle; clones share it.
#[derive(Debug, Clone)]
pub struct Capacity {
    figures: Arc<Mutex<Figures>>,
    #[cfg(test)]
    feigned: Arc<std::sync::atomic::AtomicBool>,
    _stop: Arc<DropGuard>,
}

impl Capacity {
    /// Begins to look. `condition` knows how many streams are open, `hub` what they get.
    #[must_use]
    pub fn start(limits: &Limits, condition: Arc<Condition>, hub: Hub) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut estimator = Estimator::new(limits.streams, processors);
        let began = Instant::now();
        let look = move |late| Sample {
            at: began.elapsed(),
            open: condition.open_streams(),
            delivered: hub.deliveries(),
            cpu: sample::cpu(),
            resident: sample::resident(),
            free: sample::free(),
            late,
        };
        let figures = Arc::new(Mutex::new(estimator.look(look(Duration::ZERO))));
        let stop = CancellationToken::new();
        let task = {
            let figures = Arc::clone(&figures);
            async move {
                loop {
                    let found = estimator.look(look(wait().await));
                    publish(&found);
                    *figures.lock().unwrap_or_else(PoisonError::into_inner) = found;
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(task));
        Self {
            figures,
            #[cfg(test)]
            feigned: Arc::default(),
            _stop: Arc::new(stop.drop_guard()),
        }
    }

    /// What is known now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more stream than these is too much.
    #[must_use]
    pub fn is_full(&self, open: usize) -> bool {
        open >= self.figures().capacity
    }

    /// Whether what is not kept has to wait.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        #[cfg(test)]
        if self.feigned.load(std::sync::atomic::Ordering::Relaxed) {
            return true;
        }
        self.figures().pressed
    }

    /// Makes it look as if the processors were busy.
    #[cfg(test)]
    pub fn feign_pressure(&self, pressed: bool) {
        self.feigned.store(pressed, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Waits until the next look, and says how late a turn came at worst.
async fn wait() -> Duration {
    let (begin, mut worst) = (Instant::now(), Duration::ZERO);
    while begin.elapsed() < LOOK {
        let due = Instant::now() + TURN;
        tokio::time::sleep_until(due).await;
        worst = worst.max(due.elapsed());
    }
    worst
}

fn publish(figures: &Figures) {
    metrics::gauge!("mychat_streams_capacity").set(figures.capacity as f64);
    // Each of them every time, or the one that ended first a while ago would be there for ever.
    for bound in Bound::ALL {
        let ends_first = f64::from(u8::from(bound == figures.bound));
        metrics::gauge!("mychat_streams_bound", "bound" => bound.name()).set(ends_first);
    }
    metrics::gauge!("mychat_load").set(figures.load);
    metrics::gauge!("mychat_busy").set(figures.busy);
    metrics::gauge!("mychat_loop_late_seconds").set(figures.late_ms / 1000.0);
    metrics::gauge!("mychat_pressed").set(f64::from(u8::from(figures.pressed)));
    if let Some(bytes) = figures.bytes_per_stream {
        metrics::gauge!("mychat_stream_bytes").set(bytes);
    }
    if let Some(micros) = figures.micros_per_delivery {
        metrics::gauge!("mychat_delivery_cpu_seconds").set(micros / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_first_now_is_published() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let figures = Estimator::new(500, 2).look(Sample::default());
        metrics::with_local_recorder(&recorder, || {
            publish(&Figures { capacity: 400, bound: Bound::Memory, ..figures });
            publish(&figures);
        });
        let said = recorder.handle().render();
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("mychat_streams_")).collect();
        assert!(lines.contains(&"mychat_streams_capacity 500"), "{said}");
        assert!(lines.contains(&"mychat_streams_bound{bound=\"connections\"} 1"), "{said}");
        assert!(lines.contains(&"mychat_streams_bound{bound=\"memory\"} 0"), "{said}");
        assert_eq!(lines.len(), 4, "{said}");
    }
}
