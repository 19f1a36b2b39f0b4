//! Looks at the process every second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    estimate::{Estimator, Figures, Sample},
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
    metrics::gauge!("mychat_streams_capacity", "bound" => figures.bound.name()).set(figures.capacity as f64);
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
