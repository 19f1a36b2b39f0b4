use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    compact::Bits,
    doubts::DOUBTFUL,
    form::{COMPACT, SHORT},
    *,
};

mod doubting;
mod retiring;

/// A cursor that leaves nothing out, as whoever knows no site reads it.
fn parse(text: &str) -> Result<Cursor, Unreadable> {
    Cursor::parse(text).map(|(cursor, _)| cursor)
}

/// As a node reads it that knows of no retired site.
fn read(text: &str, vector: &VersionVector) -> Result<Cursor, Unreadable> {
    Cursor::read(text, vector, &Retired::default())
}

fn vectors() -> impl Strategy<Value = VersionVector> {
    vectors_of(0..8)
}

fn vectors_of(sites: std::ops::Range<usize>) -> impl Strategy<Value = VersionVector> {
    prop::collection::vec((any::<[u8; 16]>(), 1u64..), sites).prop_map(|entries| {
        entries.into_iter().map(|(site, version)| (SiteId(site), Version(version))).collect()
    })
}

proptest! {
    #[test]
    fn a_cursor_reads_back(vector in vectors()) {
        let cursor = Cursor::from(&vector);
        prop_assert_eq!(parse(&cursor.to_string()), Ok(cursor.clone()));
        prop_assert!(cursor.is_covered_by(&vector));
    }

    #[test]
    fn a_cursor_is_ahead_of_a_node_that_lacks_a_version(vector in vectors()) {
        let cursor = Cursor::from(&vector);
        for (site, version) in vector.iter() {
            let mut behind = vector.clone();
            behind.set(site, Version(version.0 - 1));
            prop_assert!(!cursor.is_covered_by(&behind));
        }
    }

    #[test]
    fn a_cursor_with_a_part_reads_back(vector in vectors(), site in any::<[u8; 16]>(), listed in any::<bool>(), beyond in 1u64..1 << 40, sequence in 0u32..300) {
        let site = if listed { vector.iter().next().map_or(SiteId(site), |(site, _)| site) } else { SiteId(site) };
        let version = vector.get(site).0.saturating_add(beyond);
        let cursor = Cursor::from(&vector).with_part(site, Version(version), sequence);
        prop_assert_eq!(parse(&cursor.to_string()), Ok(cursor.clone()));
        prop_assert!(cursor.has_seen(prefix(site), version, sequence));
        prop_assert!(!cursor.has_seen(prefix(site), version, sequence + 1));
        let mut whole = cursor;
        whole.advance(prefix(site), version);
        prop_assert_eq!(whole.parts, []);
    }

    #[test]
    fn beginnings_of_versions_of_several_sites_read_back(
        vector in vectors_of(0..30), others in vectors_of(0..4), sequences in prop::collection::vec(0u32..300, 0..12)
    ) {
        let mut cursor = Cursor::from(&vector);
        let sites = vector.iter().chain(others.iter()).map(|(site, _)| site);
        let parts: Vec<_> = sites.step_by(3).zip(sequences).map(|(site, sequence)| {
            (site, Version(vector.get(site).0.saturating_add(1)), sequence)
        }).filter(|(site, version, _)| version.0 > vector.get(*site).0).collect();
        for (site, version, sequence) in &parts {
            cursor = cursor.with_part(*site, *version, *sequence);
        }
        prop_assume!(cursor.entries.len() == vector.iter().count());
        let text = cursor.to_string();
        prop_assert_eq!(read(&text, &vector), Ok(cursor.clone()));
        for (at, (site, version, sequence)) in parts.iter().enumerate() {
            prop_assert!(cursor.has_seen(prefix(*site), version.0, *sequence));
            prop_assert!(!cursor.has_seen(prefix(*site), version.0, sequence + 1));
            cursor.advance(prefix(*site), version.0);
            prop_assert_eq!(cursor.parts.len(), parts.len() - at - 1);
        }
    }

    #[test]
    fn a_cursor_of_many_sites_reads_back_where_they_are_known(
        vector in vectors_of(9..60), others in vectors_of(0..9), site in any::<[u8; 16]>(),
        part in prop::option::of((1u64..1 << 40, 0u32..300))
    ) {
        let mut cursor = Cursor::from(&vector);
        if let Some((beyond, sequence)) = part {
            let version = vector.get(SiteId(site)).0.saturating_add(beyond);
            cursor = cursor.with_part(SiteId(site), Version(version), sequence);
        }
        let text = cursor.to_string();
        let marked = Marked::of(&cursor.entries, None);
        prop_assume!(cursor.entries.len() == vector.iter().count());
        prop_assume!(others.iter().all(|(site, _)| marked.version(prefix(site)).is_none()));
        // A node that knows these and others, one that knows some, and whoever only parses it.
        let mut all = others.clone();
        all.merge(&vector);
        prop_assert_eq!(read(&text, &all), Ok(cursor.clone()));
        let few: VersionVector = vector.iter().step_by(2).collect();
        let mut some = read(&text, &few).expect("nothing is ambiguous");
        let parsed: Cursor = parse(&text).expect("a cursor");
        for (site, version) in vector.iter() {
            prop_assert_eq!(some.seen(prefix(site)), version.0);
            prop_assert_eq!(parsed.seen(prefix(site)), version.0);
        }
        prop_assert!(some.is_covered_by(&all) == part.is_none() && parsed.is_covered_by(&all) == part.is_none());
        prop_assert!(!some.is_covered_by(&few) && !parsed.is_covered_by(&few));
        // As it is passed on by a node that learns the rest meanwhile.
        let again = read(&some.to_string(), &all).expect("a cursor");
        prop_assert_eq!(&again, &cursor);
        some.merge(&vector);
        prop_assert_eq!(&some, &cursor);
    }

    #[test]
    fn noise_is_refused_without_a_panic(mut noise in prop::collection::vec(any::<u8>(), 0..64), format in 1u8..4) {
        if let Some(first) = noise.first_mut() {
            *first = format;
        }
        let text = URL_SAFE_NO_PAD.encode(noise);
        if let Ok((cursor, check)) = Cursor::parse(&text) {
            prop_assert_eq!(check.is_some(), format == SHORT);
            // One that leaves something out is a cursor only together with what that is.
            prop_assert!(format == SHORT || parse(&cursor.to_string()) == Ok(cursor));
        }
        let _ = read(&text, &VersionVector::new());
    }
}

/// Another site with the same 16-bit mark.
fn twin(site: SiteId) -> SiteId {
    let mark = |site: SiteId| compact::mark(prefix(site), 16);
    let mut twin = site;
    (0u64..)
        .map(|number| {
            twin.0[..8].copy_from_slice(&number.to_be_bytes());
            twin
        })
        .find(|twin| prefix(*twin) != prefix(site) && mark(*twin) == mark(site))
        .expect("one in 65,536")
}

#[test]
fn one_site_with_the_longest_mark_is_written_as_it_was_read() {
    let mut bits = Bits::default();
    bits.put(COMPACT.into(), 8);
    bits.put(1, 16);
    bits.put(16, 5);
    bits.gamma(1);
    // The mark in one piece, and a version of one bit.
    bits.put(0, 1);
    bits.put(u64::MAX, 64);
    bits.put(0, 1);
    bits.put(1, 7);
    bits.put(1, 1);
    bits.put(0, 1);
    let text = URL_SAFE_NO_PAD.encode(&bits.bytes);
    assert_eq!(parse(&text).expect("a cursor").to_string(), text);
}

#[test]
fn a_list_that_may_be_of_other_sites_is_refused() {
    let mut rng = StdRng::seed_from_u64(9);
    let vector: VersionVector = (1..26).map(|version| (SiteId(rng.random()), Version(version))).collect();
    let text = Cursor::from(&vector).to_string();
    // Of every site the node knows another one with the same mark.
    let twins: VersionVector = vector.iter().map(|(site, version)| (twin(site), version)).collect();
    assert_eq!(read(&text, &twins), Err(Unreadable::Malformed));
    let mut both = vector.clone();
    both.merge(&twins);
    assert_eq!(read(&text, &both), Err(Unreadable::Malformed));
    // A writer that knows both tells them apart.
    let cursor = Cursor::from(&both);
    assert_eq!(read(&cursor.to_string(), &both), Ok(cursor));
}

#[test]
fn a_cursor_of_thirty_sites_or_fewer_is_short() {
    let mut rng = StdRng::seed_from_u64(30);
    for (largest, sites) in [1u64, 1000, 1 << 20, (1 << 24) - 1]
        .into_iter()
        .zip(std::iter::repeat([9, 12, 16, 20, 30]))
        .flat_map(|(largest, sites)| sites.map(|sites| (largest, sites)))
    {
        for _ in 0..50 {
            let vector: VersionVector = (0..sites)
                .map(|_| (SiteId(rng.random()), Version(rng.random_range(largest.div_ceil(2)..=largest))))
                .collect();
            let text = Cursor::from(&vector).to_string();
            assert!(text.len() < 200, "{} characters", text.len());
        }
    }
}

#[test]
fn what_is_no_cursor_is_an_error() {
    for bad in ["", "!", "AA", "Ag", "AQE", "AQEAAAAAAAAAAA", "AQAA"] {
        assert_eq!(parse(bad), Err(Unreadable::Malformed), "{bad}");
    }
    assert_eq!(parse("AQA"), Ok(Cursor::default()));
}
