//! Where the client of a request is: from its query, else from the headers that proxies set, else from its address.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Query;
use http::{HeaderMap, Uri};
use serde::Serialize;

use crate::geo::{self, Point};
use crate::geoip::GeoIp;
use crate::problem::Problem;
use crate::ranking::Place;

/// What a place was concluded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// `lat` and `lon` in the query.
    Coordinates,
    /// `region` in the query.
    Region,
    /// `ip` in the query, or the address of the connection, by the GeoIP database.
    Ip,
    /// What a proxy in front says: `Fly-Region`, `Fly-Client-IP` or `X-Forwarded-For`.
    Header,
    /// Nothing.
    None,
}

/// A place and what it was concluded from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) source: Source,
}

/// What a request may be located by, besides its own content.
pub(crate) struct Means<'a> {
    pub(crate) geoip: Option<&'a GeoIp>,
    /// Regions that count as known though they are not on the map: those of the nodes.
    pub(crate) extra_regions: &'a [&'a str],
}

impl Means<'_> {
    /// The place that the query gives; `None` when it gives none.
    ///
    /// Everything given must be valid, also what is not needed: coordinates are believed before a region, a region
    /// before an address.
    pub(crate) fn by_query(&self, uri: &Uri) -> Result<Option<Located>, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::invalid_query(format!("the query can't be read: {error}")))?;
        let coordinates = match (single(&pairs, "lat")?, single(&pairs, "lon")?) {
            (None, None) => None,
            (Some(lat), Some(lon)) => Some(coordinates(lat, lon)?),
            _ => return Err(Problem::invalid_query("lat and lon are given together or not at all")),
        };
        let region = single(&pairs, "region")?.map(|code| self.known_region(code)).transpose()?;
        let ip = single(&pairs, "ip")?.map(parse_ip).transpose()?;
        if let Some(point) = coordinates {
            return Ok(Some(Located { place: Place::Point(point), source: Source::Coordinates }));
        }
        if let Some(code) = region {
            return Ok(Some(Located { place: Place::Region(code), source: Source::Region }));
        }
        // An address that can't be located is still an answer: another one must not take its place.
        Ok(ip.map(|ip| match self.by_address(ip) {
            Some(point) => Located { place: Place::Point(point), source: Source::Ip },
            None => Located { place: Place::Unknown, source: Source::None },
        }))
    }

    /// The place that headers or the connection suggest. These are hints: what can't be read is passed over, and a
    /// client that lies only sends itself farther away.
    pub(crate) fn by_connection(&self, headers: &HeaderMap, peer: IpAddr) -> Located {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        if let Some(code) = header("fly-region").and_then(|code| self.known_region(code).ok()) {
            return Located { place: Place::Region(code), source: Source::Header };
        }
        let client = header("fly-client-ip").and_then(|ip| parse_ip(ip).ok());
        let forwarded = header("x-forwarded-for").into_iter().flat_map(|list| list.split(','));
        let forwarded = forwarded.filter_map(|ip| forwarded_ip(ip.trim()));
        if let Some(point) = client.into_iter().chain(forwarded).find_map(|ip| self.by_address(ip)) {
            return Located { place: Place::Point(point), source: Source::Header };
        }
        match self.by_address(peer) {
            Some(point) => Located { place: Place::Point(point), source: Source::Ip },
            None => Located { place: Place::Unknown, source: Source::None },
        }
    }

    fn by_address(&self, ip: IpAddr) -> Option<Point> {
        self.geoip.and_then(|geoip| geoip.locate(ip))
    }

    fn known_region(&self, code: &str) -> Result<String, Problem> {
        if let Some(region) = geo::region(code) {
            return Ok(region.code.to_owned());
        }
        if let Some(extra) = self.extra_regions.iter().find(|extra| extra.eq_ignore_ascii_case(code)) {
            return Ok((*extra).to_owned());
        }
        let mut known: Vec<_> = geo::regions().iter().map(|region| region.code).collect();
        known.extend(self.extra_regions);
        known.sort_unstable();
        known.dedup();
        Err(Problem::unknown_region(format!("no such region; the known ones are {}", known.join(", "))))
    }
}

/// The one value of a parameter.
fn single<'a>(pairs: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.trim());
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Problem::invalid_query(format!("{name} is given more than once"))),
    }
}

fn coordinates(lat: &str, lon: &str) -> Result<Point, Problem> {
    let degrees = |name, text: &str| {
        text.parse::<f64>().map_err(|_| Problem::invalid_query(format!("{name} is not a number of degrees")))
    };
    let (lat, lon) = (degrees("lat", lat)?, degrees("lon", lon)?);
    Point::new(lat, lon).ok_or_else(|| {
        Problem::invalid_query("lat must be from -90 to 90 and lon from -180 to 180 degrees".to_owned())
    })
}

fn parse_ip(text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| Problem::invalid_query("ip is not an IPv4 or IPv6 address"))
}

/// An entry of `X-Forwarded-For`, which some proxies write with a port.
fn forwarded_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geoip;

    const MEANS: Means<'static> = Means { geoip: None, extra_regions: &["lab"] };

    fn query(text: &str) -> Result<Option<Located>, Problem> {
        MEANS.by_query(&format!("/v1/route?{text}").parse().unwrap())
    }

    #[test]
    fn the_query_is_believed_in_order() {
        let both = query("lat=-33.9&lon=151.2&region=fra").unwrap().unwrap();
        assert_eq!(both.source, Source::Coordinates);
        let region = query("region=FRA&ip=192.0.2.1").unwrap().unwrap();
        assert_eq!(region, Located { place: Place::Region("fra".into()), source: Source::Region });
        assert_eq!(query("region=lab").unwrap().unwrap().place, Place::Region("lab".into()));
        assert_eq!(query("ip=192.0.2.1").unwrap().unwrap().source, Source::None);
        assert_eq!(query("").unwrap(), None);
        assert_eq!(query("other=1").unwrap(), None);
    }

    #[test]
    fn invalid_queries_are_refused_with_the_reason() {
        for bad in [
            "lat=1",
            "lon=1",
            "lat=x&lon=1",
            "lat=91&lon=0",
            "lat=0&lon=-181",
            "lat=NaN&lon=0",
            "lat=&lon=",
            "lat=1&lat=2&lon=3",
            "ip=300.1.1.1",
            "ip=",
            "ip=localhost",
            "region=fra&region=iad",
            "region=fra&lat=200&lon=0",
            "lat=1e999&lon=0",
            "lat=%ff&lon=1",
        ] {
            assert_eq!(query(bad).unwrap_err().code, "invalid_query", "{bad}");
        }
        let unknown = query("region=atlantis").unwrap_err();
        assert_eq!(unknown.code, "unknown_region");
        assert!(unknown.detail.contains("fra, gru") && unknown.detail.contains("lab"), "{}", unknown.detail);
        assert!(!unknown.detail.contains("atlantis"), "what was sent is not repeated");
    }

    #[test]
    fn headers_are_hints_and_the_address_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("city.mmdb");
        std::fs::write(&file, geoip::tests::database()).unwrap();
        let geoip = GeoIp::open(&file).unwrap();
        let means = Means { geoip: Some(&geoip), extra_regions: &[] };
        let at = |pairs: &[(&'static str, &str)], peer: &str| {
            let headers = pairs.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
            });
            means.by_connection(&headers.collect(), peer.parse().unwrap())
        };
        let unlocated = "203.0.113.1";
        let region = at(&[("fly-region", "iad"), ("fly-client-ip", "1.2.3.4")], unlocated);
        assert_eq!(region, Located { place: Place::Region("iad".into()), source: Source::Header });
        let client = at(&[("fly-region", "atlantis"), ("fly-client-ip", "1.2.3.4")], unlocated);
        assert_eq!(client.source, Source::Header);
        let forwarded = at(&[("x-forwarded-for", "junk, 203.0.113.7, 1.2.3.4:999, 10.0.0.1")], unlocated);
        assert!(matches!(forwarded, Located { place: Place::Point(_), source: Source::Header }));
        assert_eq!(at(&[], "1.2.3.4").source, Source::Ip);
        let none = Located { place: Place::Unknown, source: Source::None };
        assert_eq!(at(&[("x-forwarded-for", ",,")], unlocated), none);
        assert_eq!(MEANS.by_connection(&HeaderMap::new(), "1.2.3.4".parse().unwrap()), none);
    }
}
