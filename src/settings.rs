//! Settings from three places, the later over the earlier: a TOML file, `MYCHAT_*` variables, flags.
//!
//! Each server's settings are one struct of options that clap fills from flags and variables and serde from a
//! section of the file; [`layers`] puts the first over the second.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

/// A settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// For `mychat dev`.
    pub dev: crate::dev::DevArgs,
    /// For `mychat node`.
    pub node: crate::node::NodeArgs,
    /// For `mychat router`.
    pub router: crate::router::RouterArgs,
}

impl File {
    /// Reads the file, if there is one.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--config {}: can't be read", path.display()))?;
        toml::from_str(&text).with_context(|| format!("--config {}: not understood", path.display()))
    }
}

/// Implements `over`: what `self` leaves open is taken from another.
macro_rules! layers {
    ($settings:ty { $($option:ident),* $(,)? } lists { $($list:ident),* $(,)? } switches { $($switch:ident),* $(,)? }) => {
        impl $settings {
            /// These settings, and what they leave open from the file's.
            pub fn over(self, file: Self) -> Self {
                Self {
                    $($option: self.$option.or(file.$option),)*
                    $($list: if self.$list.is_empty() { file.$list } else { self.$list },)*
                    $($switch: self.$switch || file.$switch,)*
                }
            }
        }
    };
}
pub(crate) use layers;

/// A setting that has no default.
pub fn required<T>(value: Option<T>, flag: &str, variable: &str) -> anyhow::Result<T> {
    value.with_context(|| {
        format!("{flag} is missing (a flag, the variable {variable}, or a line in the settings file)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_count_more_than_the_file() {
        let file: File = toml::from_str(
            "[node]\nregion = \"fra\"\nhttp = \"127.0.0.1:1\"\npeer = [\"a:1\"]\n[dev]\nport = 9000\nno-delay = true",
        )
        .expect("a settings file");
        let flags = crate::node::NodeArgs { region: Some("syd".into()), ..Default::default() };
        let node = flags.over(file.node);
        assert_eq!((node.region.as_deref(), node.http.as_deref()), (Some("syd"), Some("127.0.0.1:1")));
        assert_eq!(node.peer, ["a:1"]);
        let dev = crate::dev::DevArgs::default().over(file.dev);
        assert_eq!((dev.port, dev.no_delay), (Some(9000), true));
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let error =
            toml::from_str::<File>("[node]\nregoin = \"fra\"").expect_err("a typing error").to_string();
        assert!(error.contains("regoin"), "{error}");
    }
}
