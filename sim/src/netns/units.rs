//! Quantities with their units, as people write them: `80ms`, `2%`, `10mbit`, `256KiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};

/// The longest delay that is taken: longer than any way on earth, and what is held back is bounded.
const LONGEST: Duration = Duration::from_secs(60);
/// The smallest bandwidth and queue that one full packet fits through.
const LEAST_BITS: f64 = 1_000.0;
const LEAST_QUEUE: f64 = 2_048.0;
/// More of either is as good as no bound.
const MOST: f64 = 1e12;

/// A time of a way: from none to a minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delay(pub Duration);

/// The share of packets that is lost, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss(pub f64);

/// Bits a second; none is as fast as it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth(pub Option<u64>);

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bytes(pub u64);

/// A number and the unit behind it; the unit in lower case.
fn split(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

/// The number times the factor of its unit.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, unit) = split(text)?;
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| number * factor)
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
        let seconds = if text.trim() == "0" { Some(0.0) } else { scaled(text, &unit) };
        let seconds = seconds.filter(|seconds| *seconds <= LONGEST.as_secs_f64());
        let seconds = seconds.ok_or_else(|| format!("{text:?} is not a time of 0 to 60 s, such as 80ms"))?;
        Ok(Self(Duration::from_secs_f64(seconds)))
    }
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = if text.trim() == "0" { Some(0.0) } else { scaled(text, &[("%", 0.01)]) };
        let share = share.filter(|share| *share <= 1.0);
        share.map(Self).ok_or_else(|| format!("{text:?} is not a share of 0% to 100%, such as 2%"))
    }
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "none" {
            return Ok(Self(None));
        }
        let units = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
        let bits = scaled(text, &units).filter(|bits| (LEAST_BITS..=MOST).contains(bits));
        let bits = bits.ok_or_else(|| {
            format!("{text:?} is not a bandwidth of at least 1kbit (a second), such as 10mbit, and not none")
        })?;
        Ok(Self(Some(bits.round() as u64)))
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("kib", 1024.0), ("mib", 1_048_576.0), ("kb", 1e3), ("mb", 1e6)];
        let bytes = scaled(text, &units).filter(|bytes| (LEAST_QUEUE..=MOST).contains(bytes));
        let bytes =
            bytes.ok_or_else(|| format!("{text:?} is not a size of at least 2KiB, such as 256KiB"))?;
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded to what the emulation can do.
        let ms = (self.0.as_secs_f64() * 1e5).round() / 1e2;
        write!(f, "{ms}ms")
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", (self.0 * 1e6).round() / 1e4)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "none"),
            Some(bits) if bits >= 1_000_000_000 => write!(f, "{}gbit", bits as f64 / 1e9),
            Some(bits) if bits >= 1_000_000 => write!(f, "{}mbit", bits as f64 / 1e6),
            Some(bits) => write!(f, "{}kbit", bits as f64 / 1e3),
        }
    }
}

/// From a TOML string; a number without its unit is told what is missing.
macro_rules! from_toml {
    ($($quantity:ident: $example:literal),*) => {$(
        impl<'de> Deserialize<'de> for $quantity {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                match toml::Value::deserialize(from)? {
                    toml::Value::String(text) => text.parse().map_err(D::Error::custom),
                    other => Err(D::Error::custom(format!(
                        "{other} has no unit: write it as a text, such as \"{}\"", $example
                    ))),
                }
            }
        }
    )*};
}

from_toml!(Delay: "80ms", Loss: "2%", Bandwidth: "10mbit", Bytes: "256KiB");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        let delay = |text: &str| text.parse::<Delay>().map(|delay| delay.0.as_micros());
        assert_eq!(delay("80ms"), Ok(80_000));
        assert_eq!(delay("1.5 ms"), Ok(1_500));
        assert_eq!((delay("250us"), delay("0"), delay("2S")), (Ok(250), Ok(0), Ok(2_000_000)));
        assert_eq!("2.5%".parse(), Ok(Loss(0.025)));
        assert_eq!("10Mbit".parse(), Ok(Bandwidth(Some(10_000_000))));
        assert_eq!("none".parse(), Ok(Bandwidth(None)));
        // Its product with the unit is a little below the whole number.
        assert_eq!("263.203mbit".parse(), Ok(Bandwidth(Some(263_203_000))));
        assert_eq!("256KiB".parse(), Ok(Bytes(262_144)));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["80", "ms", "-1ms", "80 min", "61s", "", "1e3ms", "NaNms", "80msms"] {
            assert!(text.parse::<Delay>().unwrap_err().contains("80ms"), "{text}");
        }
        for text in ["2", "101%", "-1%", "half"] {
            assert!(text.parse::<Loss>().is_err(), "{text}");
        }
        for text in ["10", "10mb", "0mbit", "0.5kbit"] {
            assert!(text.parse::<Bandwidth>().is_err(), "{text}");
        }
        for text in ["1KiB", "256", "many"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(us in 0..6_000_000_u64, loss in 0..=10_000_u32, kbit in 1..2_000_000_u64) {
            let delay = Delay(Duration::from_micros(us * 10));
            prop_assert_eq!(delay.to_string().parse::<Delay>().unwrap().0.as_micros(), delay.0.as_micros());
            let shown = Loss(f64::from(loss) / 1e4);
            prop_assert!((shown.to_string().parse::<Loss>().unwrap().0 - shown.0).abs() < 1e-6);
            let bandwidth = Bandwidth(Some(kbit * 1_000));
            prop_assert_eq!(bandwidth.to_string().parse::<Bandwidth>().unwrap(), bandwidth);
        }

        #[test]
        fn nothing_that_is_typed_is_a_panic(text in "\\PC{0,12}") {
            let _ = (text.parse::<Delay>(), text.parse::<Loss>(), text.parse::<Bandwidth>(), text.parse::<Bytes>());
        }
    }
}
