//! The addresses of the regions.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _};

/// A range of private IPv4 addresses (RFC 1918), as `10.77.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// The one that is taken where nobody says: 10.77.`third`.0/24.
    pub fn usual(third: u8) -> Self {
        Self { base: u32::from(Ipv4Addr::new(10, 77, third, 0)), prefix: 24 }
    }

    /// How many addresses there are for regions: all but the network's own, the broadcast's and the host's.
    pub fn room(self) -> usize {
        (self.size() - 3) as usize
    }

    /// The address of a region by its number, counted from 0.
    pub fn nth(self, region: usize) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1 + region as u32)
    }

    /// The address of the host: the last one.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + self.size() - 2)
    }

    /// Whether a region can have this address.
    pub fn has(self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        (self.base + 1..self.base + self.size() - 2).contains(&address)
    }

    /// How many leading bits all addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is not a network such as 10.77.0.0/24");
        let (base, prefix) = text.split_once('/').ok_or_else(form)?;
        let base: Ipv4Addr = base.parse().map_err(|_| form())?;
        let prefix = prefix.parse().ok().filter(|prefix| (16..=28).contains(prefix));
        let prefix: u8 = prefix.ok_or_else(|| format!("{text:?}: between /16 and /28 is possible"))?;
        if !base.is_private() {
            return Err(format!(
                "{text:?} is not private; take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"
            ));
        }
        let subnet = Self { base: u32::from(base), prefix };
        if !subnet.base.is_multiple_of(subnet.size()) {
            let base = Ipv4Addr::from(subnet.base - subnet.base % subnet.size());
            return Err(format!("{text:?} begins within a network; its own is {base}/{prefix}"));
        }
        Ok(subnet)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_network() {
        let subnet: Subnet = "192.168.8.16/28".parse().unwrap();
        assert_eq!((subnet.to_string().as_str(), subnet.room()), ("192.168.8.16/28", 13));
        assert_eq!(subnet.nth(0), Ipv4Addr::new(192, 168, 8, 17));
        assert_eq!(subnet.nth(12), Ipv4Addr::new(192, 168, 8, 29));
        assert_eq!(subnet.host(), Ipv4Addr::new(192, 168, 8, 30));
        assert!(subnet.has(subnet.nth(12)) && !subnet.has(subnet.host()));
        assert_eq!(Subnet::usual(3), "10.77.3.0/24".parse().unwrap());
    }

    #[test]
    fn what_is_no_private_network_is_refused() {
        for (text, says) in [
            ("10.77.0.0", "not a network"),
            ("10.77.0/24", "not a network"),
            ("10.77.0.0/30", "/28"),
            ("10.0.0.0/8", "/16"),
            ("8.8.8.0/24", "not private"),
            ("10.77.0.5/24", "10.77.0.0/24"),
        ] {
            let error = text.parse::<Subnet>().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
