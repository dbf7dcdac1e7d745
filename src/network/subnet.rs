//! A network of IPv4 addresses, as `10.213.0.0/20`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Addresses whose first bits are the same: from /16 to /28.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    first: u32,
    prefix: u8,
}

/// [`super::SUBNET`].
pub(super) fn default() -> Subnet {
    Subnet {
        first: u32::from(Ipv4Addr::new(10, 213, 0, 0)),
        prefix: 20,
    }
}

impl Subnet {
    /// How many bits are the same.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The bridge's address, the first one that a host may have.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 1)
    }

    /// How many addresses instances may have.
    #[must_use]
    pub fn size(&self) -> u32 {
        // Without the network itself, the gateway, and the broadcast address.
        (1 << (32 - self.prefix)) - 3
    }

    /// The address of this number, from 0 and below [`Subnet::size`].
    #[must_use]
    pub fn address(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.first + 2 + number)
    }

    /// Whether an instance may have this address.
    #[must_use]
    pub fn has(&self, address: Ipv4Addr) -> bool {
        let number = u32::from(address).checked_sub(self.first + 2);
        number.is_some_and(|number| number < self.size())
    }

    /// Whether some address is in both networks.
    #[must_use]
    pub fn overlaps(&self, other: Ipv4Addr, prefix: u8) -> bool {
        let bits = prefix.min(self.prefix);
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        u32::from(other) & mask == self.first & mask
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Subnet, String> {
        let refused = || format!("must be a network from /16 to /28 as 10.213.0.0/20, is {text:?}");
        let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
        let address: Ipv4Addr = address.parse().map_err(|_| refused())?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|prefix| (16..=28).contains(prefix));
        let prefix: u8 = prefix.ok_or_else(refused)?;
        let first = u32::from(address);
        if first << prefix != 0 {
            let masked = Ipv4Addr::from(first & (u32::MAX << (32 - prefix)));
            return Err(format!(
                "{text:?} is an address in {masked}/{prefix}: give that"
            ));
        }
        Ok(Subnet { first, prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_and_written_back() {
        let subnet: Subnet = super::super::SUBNET.parse().unwrap();
        assert_eq!(subnet, default());
        assert_eq!(subnet.to_string(), super::super::SUBNET);
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 213, 0, 1));
        assert_eq!(subnet.address(0), Ipv4Addr::new(10, 213, 0, 2));
        let last = subnet.address(subnet.size() - 1);
        assert_eq!(last, Ipv4Addr::new(10, 213, 15, 254));
        assert!(subnet.has(last) && !subnet.has(subnet.gateway()));
        assert!(!subnet.has(Ipv4Addr::new(10, 213, 15, 255)));
        for wrong in [
            "10.0.0.0",
            "10.0.0.0/8",
            "10.0.0.0/30",
            "10.213.0.1/20",
            "x/20",
            "::/64",
        ] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks_overlap_when_one_is_in_the_other() {
        let subnet = default();
        let overlaps = |address: [u8; 4], prefix| subnet.overlaps(address.into(), prefix);
        assert!(overlaps([10, 0, 0, 0], 8) && overlaps([10, 213, 15, 0], 24));
        assert!(overlaps([0, 0, 0, 0], 0) && overlaps([10, 213, 1, 1], 32));
        assert!(!overlaps([10, 213, 16, 0], 20) && !overlaps([172, 17, 0, 0], 16));
    }
}
