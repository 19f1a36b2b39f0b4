//! The shortest history that still fails: parts are left out as long as the same rule is broken (delta debugging,
//! Zeller and Hildebrandt, 2002), for a bounded time.

use std::time::{Duration, Instant};

use super::{Runs, oracle::Objection, plan::Plan};

/// A history that fails, and what is wrong with it.
#[derive(Debug)]
pub struct Shortest {
    pub plan: Plan,
    pub objection: Objection,
    /// Items of the whole history.
    pub of: usize,
    /// Runs that it took to find it.
    pub runs: usize,
}

/// Shortens a history that fails with `objection`.
pub fn shrink(runs: &Runs, plan: Plan, objection: Objection, patience: Duration) -> Shortest {
    let deadline = Instant::now() + patience;
    let mut shortest = Shortest { of: plan.items.len(), plan, objection, runs: 0 };
    // What is planned for later than the failure had no part in it.
    let at = shortest.objection.at;
    if !at.is_zero() {
        let before: Vec<usize> =
            shortest.plan.items.iter().filter(|item| item.at <= at).map(|item| item.number).collect();
        try_shorter(runs, &mut shortest, &before);
    }
    let mut pieces = 2;
    while shortest.plan.items.len() > 1 && Instant::now() < deadline {
        let numbers = shortest.plan.numbers();
        let size = numbers.len().div_ceil(pieces);
        let shorter = numbers.chunks(size).any(|piece| {
            let rest: Vec<usize> = numbers.iter().filter(|number| !piece.contains(number)).copied().collect();
            Instant::now() < deadline && try_shorter(runs, &mut shortest, &rest)
        });
        if shorter {
            pieces = (pieces - 1).max(2);
        } else if size == 1 {
            break;
        } else {
            pieces = (pieces * 2).min(numbers.len());
        }
    }
    shortest
}

/// Whether a shorter history breaks the same rule.
fn try_shorter(runs: &Runs, shortest: &mut Shortest, numbers: &[usize]) -> bool {
    let plan = shortest.plan.only(numbers);
    shortest.runs += 1;
    match runs.history(plan.clone(), false).objection {
        Some(objection) if objection.rule == shortest.objection.rule => {
            (shortest.plan, shortest.objection) = (plan, objection);
            true
        }
        _ => false,
    }
}
