//! Cursors of which something is in doubt.

use super::*;

/// A site that is named, or of which only a mark is.
fn sites() -> impl Strategy<Value = Site> {
    prop_oneof![
        any::<SitePrefix>().prop_map(Site::Known),
        (4u32..=16, any::<u64>()).prop_map(|(bits, mark)| Site::Marked(bits * 4, mark >> (64 - bits * 4))),
    ]
}

fn with_doubts(sites: impl IntoIterator<Item = (Site, u64)>) -> Doubts {
    let mut doubts = Doubts::default();
    sites.into_iter().for_each(|(site, after)| doubts.lower(site, after));
    doubts
}

proptest! {
    #[test]
    fn a_cursor_with_doubts_reads_back(
        held in vectors_of(0..40), beyond in prop::collection::vec(0u64..9, 40), news in any::<[u8; 16]>(), part in any::<bool>()
    ) {
        // The client has seen more of some sites, and lacks a site that the node has.
        let mut ahead = held.clone();
        for ((site, version), beyond) in held.iter().zip(&beyond) {
            ahead.set(site, Version(version.0.saturating_add(*beyond)));
        }
        let mut cursor = Cursor::from(&ahead);
        if part && let Some((site, version)) = ahead.iter().next() && version.0 < u64::MAX {
            cursor = cursor.with_part(site, Version(version.0 + 1), 7);
        }
        let untouched = cursor.clone();
        cursor.comes_to(&held);
        prop_assert_eq!(&cursor, &untouched, "there is nothing to tell");
        let mut held = held;
        held.set(SiteId(news), Version(1));
        prop_assume!(untouched.seen(prefix(SiteId(news))) == 0);
        cursor.comes_to(&held);
        for (site, version) in held.iter() {
            prop_assert_eq!(cursor.told(prefix(site)), version.0.min(untouched.seen(prefix(site))));
            prop_assert!(!cursor.doubts(prefix(site), version.0));
            let more = untouched.reach(prefix(site)) > version.0;
            prop_assert_eq!(cursor.doubts(prefix(site), version.0.saturating_add(1)), more);
        }
        let text = cursor.to_string();
        prop_assert_eq!(read(&text, &ahead), Ok(cursor.clone()));
        prop_assert_eq!(untouched.to_string() == text, cursor.doubts.is_empty());
        // Once all is told, it is as any other.
        ahead.advance(SiteId(news), Version(1));
        cursor.merge(&ahead);
        if !part {
            prop_assert_eq!(cursor.to_string(), Cursor::from(&ahead).to_string());
        }
    }

    #[test]
    fn doubts_read_back(list in prop::collection::vec((sites(), any::<u64>()), 1..9), tail in prop::collection::vec(any::<u8>(), 0..9)) {
        let doubts = with_doubts(list);
        let bytes = doubts.write(tail.clone());
        let mut rest = &bytes[1..];
        prop_assert_eq!(Doubts::read(&mut rest), Ok(doubts));
        prop_assert_eq!(rest, tail);
    }

    #[test]
    fn noise_with_doubts_is_refused_without_a_panic(
        list in prop::collection::vec((sites(), any::<u64>()), 0..5), noise in prop::collection::vec(any::<u8>(), 0..64), format in 0u8..6
    ) {
        let bytes = with_doubts(list).write([&[format], &noise[..]].concat());
        let text = URL_SAFE_NO_PAD.encode(bytes);
        if let Ok((cursor, None)) = Cursor::parse(&text) {
            prop_assert_eq!(parse(&cursor.to_string()), Ok(cursor));
        }
        let _ = read(&text, &VersionVector::new());
    }

    #[test]
    fn a_damaged_cursor_with_doubts_is_refused_or_another_one(
        vector in vectors_of(1..20), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), bit in 0u8..8
    ) {
        let mut cursor = Cursor::from(&vector);
        cursor.doubt_beyond(&VersionVector::new());
        let bytes = URL_SAFE_NO_PAD.decode(cursor.to_string()).expect("base64");
        let mut damaged = bytes.clone();
        damaged[flip.index(bytes.len())] ^= 1 << bit;
        for bytes in [&bytes[..cut.index(bytes.len())], &damaged] {
            let text = URL_SAFE_NO_PAD.encode(bytes);
            if let Ok(read) = read(&text, &vector) {
                // A doubt is always of something that is seen.
                for (site, _) in vector.iter() {
                    prop_assert!(read.told(prefix(site)) <= read.seen(prefix(site)));
                }
                prop_assert_eq!(super::read(&read.to_string(), &vector), Ok(read));
            }
        }
    }
}

#[test]
fn a_doubt_of_what_is_not_seen_is_none() {
    let vector: VersionVector = [(SiteId([1; 16]), Version(5))].into_iter().collect();
    let [seen, other] = [1, 2].map(|site| Site::Known([site; 8]));
    let doubts = with_doubts([(seen, 5), (other, 0), (Site::Marked(16, 3), 0)]);
    let doubtful = Cursor { doubts, ..Cursor::from(&vector) };
    assert_eq!(read(&doubtful.to_string(), &vector), Ok(Cursor::from(&vector)));
}

#[test]
fn what_is_no_list_of_doubts_is_an_error() {
    let without = Cursor::default().whole();
    let site = |number: u8| [vec![0], vec![number; 8], vec![1]].concat();
    let cases = [
        // None, two of the same site, not in order, more than there are, a mark that is too long, one of no such length.
        vec![DOUBTFUL, 0],
        [vec![DOUBTFUL, 2], site(1), site(1)].concat(),
        [vec![DOUBTFUL, 2], site(2), site(1)].concat(),
        [vec![DOUBTFUL, 255, 255, 255, 255, 255, 255, 255, 255, 127], site(1)].concat(),
        vec![DOUBTFUL, 1, 4, 128, 128, 4, 1],
        vec![DOUBTFUL, 1, 17, 1, 1],
        // Doubts before doubts.
        [vec![DOUBTFUL, 1], site(1), vec![DOUBTFUL, 1], site(1)].concat(),
    ];
    for case in cases {
        let text = URL_SAFE_NO_PAD.encode([&case[..], &without].concat());
        assert_eq!(parse(&text), Err(Unreadable::Malformed), "{case:?}");
    }
    let good = [vec![DOUBTFUL, 2], site(1), site(2), without].concat();
    assert!(parse(&URL_SAFE_NO_PAD.encode(good)).is_ok());
}
