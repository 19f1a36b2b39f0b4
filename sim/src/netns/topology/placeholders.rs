//! What a command may leave to its region: `{region}`, `{address}`, `{peers}` …
//!
//! Braces that hold anything else are left as they are, since shells and other languages have their own use for them.

use super::Topology;

impl Topology {
    /// A command as it runs in a region.
    ///
    /// # Errors
    /// Names a region that is not there.
    pub fn command_in(&self, region: usize, command: &[String]) -> Result<Vec<String>, String> {
        command.iter().map(|argument| self.argument(region, argument)).collect()
    }

    /// The variables that tell a process where it is.
    pub fn variables(&self, region: usize) -> [(&'static str, String); 3] {
        [
            ("MYCHAT_REGION", self.regions[region].name.clone()),
            ("MYCHAT_WAN_ADDRESS", self.address(region).to_string()),
            ("MYCHAT_WAN_PEERS", self.peers(region, "")),
        ]
    }

    fn argument(&self, region: usize, argument: &str) -> Result<String, String> {
        let (mut filled, mut rest) = (String::new(), argument);
        while let Some(open) = rest.find('{') {
            filled.push_str(&rest[..open]);
            rest = &rest[open..];
            let Some(close) = rest.find('}') else { break };
            match self.value(region, &rest[1..close])? {
                Some(value) => {
                    filled.push_str(&value);
                    rest = &rest[close + 1..];
                }
                None => {
                    filled.push('{');
                    rest = &rest[1..];
                }
            }
        }
        Ok(filled + rest)
    }

    fn value(&self, region: usize, name: &str) -> Result<Option<String>, String> {
        Ok(match name.split_once(':') {
            None if name == "region" => Some(self.regions[region].name.clone()),
            None if name == "address" => Some(self.address(region).to_string()),
            None if name == "peers" => Some(self.peers(region, "")),
            Some(("peers", port)) if port.parse::<u16>().is_ok() => {
                Some(self.peers(region, &format!(":{port}")))
            }
            Some(("address", other)) => {
                let at = self.names().position(|name| name == other);
                let at = at.ok_or_else(|| format!("{{{name}}}: there is no region {other:?}"))?;
                Some(self.address(at).to_string())
            }
            _ => None,
        })
    }

    /// The addresses of all other regions.
    fn peers(&self, region: usize, port: &str) -> String {
        let others = (0..self.regions.len()).filter(|other| *other != region);
        others.map(|other| format!("{}{port}", self.address(other))).collect::<Vec<_>>().join(",")
    }
}
