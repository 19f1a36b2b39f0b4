//! Where an IP address is, from a database file in MaxMind's format (GeoLite2-City, DB-IP City Lite and others).
//! Optional: without one the router goes by what clients and proxies say.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use maxminddb::{MaxMindDbError, Reader, path};

use crate::geo::Point;

/// An open database, held in memory.
pub struct GeoIp {
    reader: Reader<Vec<u8>>,
}

/// Why a database can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the GeoIP database {} can't be used: {reason}", file.display())]
pub struct GeoIpError {
    /// The file that was asked for.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: MaxMindDbError,
}

impl GeoIp {
    /// Reads the whole file into memory and checks its structure; fails when it is missing, cut short or of another
    /// format. Call it at start-up: it blocks, and a setting that names a bad file should stop the program.
    pub fn open(file: &Path) -> Result<GeoIp, GeoIpError> {
        let fail = |reason| GeoIpError { file: file.to_owned(), reason };
        let reader = Reader::open_readfile(file).map_err(fail)?;
        // One look-up, because the opening checks the file's end (where the description is) but not its tree.
        reader.lookup(IpAddr::from([192, 0, 2, 1])).map_err(fail)?;
        if !reader.metadata().database_type.contains("City") {
            tracing::warn!(
                kind = reader.metadata().database_type,
                "the GeoIP database may hold no coordinates; a City edition does"
            );
        }
        Ok(GeoIp { reader })
    }

    /// The coordinates of an address, when the database has them.
    pub fn locate(&self, ip: IpAddr) -> Option<Point> {
        let record = self.reader.lookup(ip.to_canonical()).ok()?;
        let degrees = |name| record.decode_path::<f64>(&path!["location", name]).ok().flatten();
        Point::new(degrees("latitude")?, degrees("longitude")?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A database in MaxMind's format that puts the IPv4 half below 128.0.0.0 in Sydney and knows nothing of the
    /// other half: a search tree of one node, one record, and the description.
    pub(crate) fn database() -> Vec<u8> {
        // The left child points at the first record (node count + 16), the right child at "no data" (node count).
        let mut file = vec![0, 0, 17, 0, 0, 1];
        file.extend([0; 16]);
        file.extend(map(&[(
            "location",
            map(&[("latitude", double(-33.87)), ("longitude", double(151.21))]),
        )]));
        file.extend(b"\xab\xcd\xefMaxMind.com");
        file.extend(map(&[
            ("binary_format_major_version", unsigned(5, 2)),
            ("binary_format_minor_version", unsigned(5, 0)),
            ("build_epoch", extended(2, 1)),
            ("database_type", string("Test-City")),
            ("description", map(&[])),
            ("ip_version", unsigned(5, 4)),
            ("languages", vec![0, 4]),
            ("node_count", unsigned(6, 1)),
            ("record_size", unsigned(5, 24)),
        ]));
        file
    }

    fn string(text: &str) -> Vec<u8> {
        // Lengths from 29 on take another byte.
        let mut out = match text.len() {
            len @ 0..29 => vec![2 << 5 | len as u8],
            len => vec![2 << 5 | 29, len as u8 - 29],
        };
        out.extend(text.as_bytes());
        out
    }

    fn double(value: f64) -> Vec<u8> {
        [vec![3 << 5 | 8], value.to_be_bytes().to_vec()].concat()
    }

    fn unsigned(kind: u8, value: u8) -> Vec<u8> {
        vec![kind << 5 | 1, value]
    }

    /// A type of the extended range (its number minus 7 in a byte of its own), here a 64-bit number.
    fn extended(kind: u8, value: u8) -> Vec<u8> {
        vec![1, kind, value]
    }

    fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![7 << 5 | entries.len() as u8];
        for (name, value) in entries {
            out.extend(string(name));
            out.extend(value);
        }
        out
    }

    #[test]
    fn an_address_is_located_and_unknown_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("city.mmdb");
        std::fs::write(&file, database()).unwrap();
        let geoip = GeoIp::open(&file).unwrap();
        let sydney = geoip.locate("1.2.3.4".parse().unwrap()).unwrap();
        assert_eq!((sydney.lat(), sydney.lon()), (-33.87, 151.21));
        assert_eq!(geoip.locate("::ffff:1.2.3.4".parse().unwrap()), Some(sydney));
        assert_eq!(geoip.locate("203.0.113.9".parse().unwrap()), None);
        assert_eq!(geoip.locate("2001:db8::1".parse().unwrap()), None);
    }

    #[test]
    fn a_missing_or_corrupt_file_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.mmdb");
        let error = GeoIp::open(&missing).err().unwrap().to_string();
        assert!(error.contains("missing.mmdb"), "{error}");
        for bytes in [b"".to_vec(), b"not a database".to_vec(), database()[..database().len() / 2].to_vec()] {
            let file = folder.path().join("bad.mmdb");
            std::fs::write(&file, bytes).unwrap();
            let error = GeoIp::open(&file).err().unwrap().to_string();
            assert!(error.contains("bad.mmdb"), "{error}");
        }
    }
}
