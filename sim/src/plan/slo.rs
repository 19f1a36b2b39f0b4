//! What people are promised: a percentile and a time, such as `p95=150ms`, of one of two waits.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// The wait that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// From one person's sending to the other's screen, over all pairs of people.
    Delivery,
    /// From a person's sending to the answer that the message is durable, over all people.
    Acknowledgement,
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Metric::Delivery => "send to delivery",
            Metric::Acknowledgement => "send to acknowledgement",
        })
    }
}

/// An objective.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slo {
    /// The percentile, more than 0 and less than 100.
    pub percentile: f64,
    /// What it must not exceed.
    pub ms: f64,
}

impl Slo {
    /// The percentile as a share.
    pub fn share(&self) -> f64 {
        self.percentile / 100.0
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}={}ms", self.percentile, self.ms)
    }
}

/// The text is no objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a percentile and a time, such as p95=150ms or p99=0.5s")]
pub struct InvalidSlo;

impl FromStr for Slo {
    type Err = InvalidSlo;

    fn from_str(text: &str) -> Result<Self, InvalidSlo> {
        let (percentile, time) = text.trim().split_once('=').ok_or(InvalidSlo)?;
        let percentile: f64 =
            percentile.trim().strip_prefix('p').and_then(|number| number.parse().ok()).ok_or(InvalidSlo)?;
        let time = time.trim();
        let (number, unit) = match (time.strip_suffix("ms"), time.strip_suffix('s')) {
            (Some(number), _) => (number, 1.0),
            (None, Some(number)) => (number, 1e3),
            (None, None) => (time, 1.0),
        };
        let ms = number.trim().parse::<f64>().map_err(|_| InvalidSlo)? * unit;
        let sound = percentile > 0.0 && percentile < 100.0 && ms > 0.0 && ms <= 1e5;
        if sound { Ok(Self { percentile, ms }) } else { Err(InvalidSlo) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read() {
        for (text, percentile, ms) in
            [("p95=150ms", 95.0, 150.0), ("p99.9=0.5s", 99.9, 500.0), (" p50 = 80 ", 50.0, 80.0)]
        {
            assert_eq!(text.parse(), Ok(Slo { percentile, ms }), "{text}");
        }
        assert_eq!(Slo { percentile: 95.0, ms: 150.0 }.to_string().parse::<Slo>().unwrap().ms, 150.0);
        for bad in
            ["", "95=150ms", "p95", "p95=", "p0=1ms", "p100=1ms", "p95=-1ms", "p95=NaNms", "pNaN=1", "p95=1h"]
        {
            assert_eq!(bad.parse::<Slo>(), Err(InvalidSlo), "{bad}");
        }
    }
}
