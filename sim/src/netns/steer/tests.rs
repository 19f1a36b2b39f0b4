//! Orders that are typed.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::netns::switch::tests::switch;

/// What an order does, as the links that are cut after it.
fn cut_after(orders: &[&str]) -> Vec<String> {
    let mut switch = switch(&["fra", "iad", "syd"], 10);
    for order in orders {
        carry_out(&order.parse().unwrap(), &mut switch).unwrap();
    }
    let cut = Status::of(&switch).links.into_iter().filter(|link| link.partitioned);
    cut.map(|link| format!("{}>{}", link.from, link.to)).collect()
}

#[test]
fn links_are_cut_and_joined_in_one_direction_or_both() {
    assert_eq!(cut_after(&["partition fra iad"]), ["fra>iad", "iad>fra"]);
    assert_eq!(cut_after(&["partition fra -> iad"]), ["fra>iad"]);
    assert_eq!(cut_after(&["partition fra->iad,syd"]), ["fra>iad", "fra>syd"]);
    assert_eq!(cut_after(&["partition syd"]), ["fra>syd", "iad>syd", "syd>fra", "syd>iad"]);
    assert_eq!(cut_after(&["partition *"]).len(), 6);
    assert_eq!(cut_after(&["partition *", "heal fra iad,syd"]), ["iad>syd", "syd>iad"]);
    assert!(cut_after(&["partition *", "heal"]).is_empty());
    assert!(cut_after(&["partition fra", "reset"]).is_empty());
}

#[test]
fn the_machine_itself_is_meant_only_by_name() {
    let mut switch = switch(&["fra", "iad", "host"], 10);
    let mut order = |line: &str| carry_out(&line.parse().unwrap(), &mut switch).unwrap();
    assert_eq!(order("partition *"), "cut: fra -> iad, iad -> fra");
    assert_eq!(order("partition fra"), "cut: fra -> iad, iad -> fra");
    assert_eq!(order("delay host -> fra 5ms"), "changed: host -> fra");
    order("partition host fra");
    order("heal");
    assert!(Status::of(&switch).links.iter().all(|link| !link.partitioned));
}

#[test]
fn links_are_changed_and_reset() {
    let mut switch = switch(&["fra", "iad", "syd"], 10);
    let mut order = |line: &str| carry_out(&line.parse().unwrap(), &mut switch);
    assert_eq!(order("delay fra iad 80ms"), Ok("changed: fra -> iad, iad -> fra".to_owned()));
    order("delay iad -> syd 90ms").unwrap();
    order("jitter syd 3ms").unwrap();
    order("loss fra -> iad 2%").unwrap();
    order("bandwidth * 10mbit").unwrap();
    order("queue fra iad 64KiB").unwrap();
    let status: serde_json::Value = serde_json::from_str(&order("status json").unwrap()).unwrap();
    let link = |at: usize| &status["links"][at];
    assert_eq!((link(0)["from"].as_str(), link(0)["to"].as_str()), (Some("fra"), Some("iad")));
    assert_eq!((link(0)["delay_ms"].as_f64(), link(0)["loss"].as_f64()), (Some(80.0), Some(0.02)));
    assert_eq!((link(0)["queue"].as_u64(), link(0)["bandwidth"].as_u64()), (Some(65_536), Some(10_000_000)));
    assert_eq!((link(3)["delay_ms"].as_f64(), link(3)["jitter_ms"].as_f64()), (Some(90.0), Some(3.0)));
    assert_eq!(status["regions"][2]["address"], "10.0.0.3");
    let table = order("status").unwrap();
    assert!(table.contains("fra -> iad") && table.contains("80ms") && table.contains("10mbit"), "{table}");
    order("reset fra").unwrap();
    assert_eq!(switch.link(0, 1).shape().delay.0, Duration::from_millis(10));
    assert_eq!(switch.link(1, 2).shape().delay.0, Duration::from_millis(90));
}

#[test]
fn wrong_orders_say_what_is_wrong_and_change_nothing() {
    for (line, says) in [
        ("", "help"),
        ("explode", "\"explode\""),
        ("partition", "of which link"),
        ("partition fra iad syd", "of which link"),
        ("partition -> fra", "of which link"),
        ("delay", "how much"),
        ("delay 80ms", "of which link"),
        ("delay fra iad fast", "\"fast\""),
        ("loss fra iad 2", "2%"),
        ("status please", "nothing more"),
    ] {
        let error = line.parse::<Order>().unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let mut switch = switch(&["fra", "iad"], 10);
    for (line, says) in [("partition fra nrt", "\"nrt\""), ("partition fra fra", "itself")] {
        let error = carry_out(&line.parse().unwrap(), &mut switch).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    assert!(Status::of(&switch).links.iter().all(|link| !link.partitioned));
    assert_eq!(carry_out(&Order::Help, &mut switch).unwrap(), HELP);
}

proptest! {
    #[test]
    fn nothing_that_is_typed_is_a_panic(line in "(partition|heal|delay|loss|reset|status|x)? ?\\PC{0,20}") {
        if let Ok(order) = line.parse::<Order>() {
            let _ = carry_out(&order, &mut switch(&["fra", "iad"], 10));
        }
    }
}
