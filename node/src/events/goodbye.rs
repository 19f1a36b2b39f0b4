//! The last event of a stream that the node ends, and when its client should come back.
//!
//! Streams that end together must not come back together: each `goodbye` of a drain has a `retry` of its own within a
//! window that grows with their number, and names the other nodes in an order of its own.

use std::ops::Range;

use serde_json::json;

use super::Item;

/// How long a browser waits before it connects again, in milliseconds: at least.
const RETRY_MILLIS: u64 = 500;
/// The shortest window of times, in milliseconds.
const RETRY_WINDOW: u64 = 2000;
/// Clients that may come back in a second.
const RETURNS_PER_SECOND: u64 = 5000;
/// Different last words of a drain.
const VARIANTS: u64 = 256;

/// When clients of a node with so many streams come back, in milliseconds: a random time of these.
fn retry_range(streams: usize) -> Range<u64> {
    let window = (streams as u64 * 1000 / RETURNS_PER_SECOND).max(RETRY_WINDOW);
    RETRY_MILLIS..RETRY_MILLIS + window
}

/// When one of them does.
pub fn retry(streams: usize) -> u64 {
    rand::random_range(retry_range(streams))
}

/// The line that says so to a client.
pub fn retry_line(millis: u64) -> String {
    format!("retry: {millis}\n")
}

/// A last event.
pub fn goodbye(reason: &str, alternatives: &[String]) -> Item {
    Item::new(None, "goodbye", &json!({ "reason": reason, "alternatives": alternatives }))
}

/// The last events of a node's streams, for each stream the next one.
pub fn goodbyes(reason: &str, alternatives: &[String], streams: usize) -> Vec<Item> {
    let range = retry_range(streams);
    let window = range.end - range.start;
    let variants = 0..VARIANTS.min(streams.max(1) as u64);
    variants
        .map(|variant| {
            // Neighbours in the list are far apart in time, so a few streams are spread like many.
            let place = variant.reverse_bits() >> (u64::BITS - VARIANTS.ilog2());
            let mut order = alternatives.to_vec();
            order.rotate_left(usize::try_from(variant).unwrap_or_default() % alternatives.len().max(1));
            let retry = range.start + place * window / VARIANTS;
            let data = json!({ "reason": reason, "alternatives": order, "retry": retry });
            let mut item = Item::new(None, "goodbye", &data);
            item.wire = [format!("retry: {retry}\n").as_bytes(), &item.wire].concat().into();
            item
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_leave_together_come_back_one_after_the_other() {
        let alternatives = ["http://a".to_owned(), "http://b".to_owned()];
        for streams in [1, 10, 10_000, 50_000] {
            let range = retry_range(streams);
            let all = goodbyes("draining", &alternatives, streams);
            // How many come back in each second.
            let mut seconds = std::collections::BTreeMap::<u64, usize>::new();
            for stream in 0..streams {
                let text = std::str::from_utf8(&all[stream % all.len()].wire).expect("text");
                let (first, rest) = text.split_once('\n').expect("lines");
                let retry: u64 = first.strip_prefix("retry: ").expect("a hint").parse().expect("a number");
                assert!(range.contains(&retry) && rest.starts_with("event: goodbye\n"), "{text}");
                *seconds.entry(retry / 1000).or_default() += 1;
            }
            assert!(seconds.values().all(|count| *count <= 5200), "{seconds:?}");
        }
        let first = |item: &Item| item.data.contains(r#""alternatives":["http://a""#);
        let all = goodbyes("draining", &alternatives, 1000);
        assert_eq!(all.iter().filter(|item| first(item)).count() * 2, all.len());
    }
}
