//! The shortest history that still fails: parts are left out as long as the same rule is broken (delta debugging,
//! Zeller and Hildebrandt, 2002), for a bounded time.

use std::time::{Duration, Instant};

use super::plan::Plan;
use crate::virtual_time::Objection;

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

/// Shortens a history that fails with `objection`; `run` runs one, and says what is wrong with it.
pub fn shrink(
    run: impl Fn(Plan) -> Option<Objection>,
    plan: Plan,
    objection: Objection,
    patience: Duration,
) -> Shortest {
    let deadline = Instant::now() + patience;
    let mut shortest = Shortest { of: plan.items.len(), plan, objection, runs: 0 };
    // What is planned for later than the failure had no part in it.
    let at = shortest.objection.at;
    if !at.is_zero() {
        let before: Vec<usize> =
            shortest.plan.items.iter().filter(|item| item.at <= at).map(|item| item.number).collect();
        try_shorter(&run, &mut shortest, &before);
    }
    let mut pieces = 2;
    while shortest.plan.items.len() > 1 && Instant::now() < deadline {
        let numbers = shortest.plan.numbers();
        let size = numbers.len().div_ceil(pieces);
        let shorter = numbers.chunks(size).any(|piece| {
            let rest: Vec<usize> = numbers.iter().filter(|number| !piece.contains(number)).copied().collect();
            Instant::now() < deadline && try_shorter(&run, &mut shortest, &rest)
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
fn try_shorter(run: &impl Fn(Plan) -> Option<Objection>, shortest: &mut Shortest, numbers: &[usize]) -> bool {
    let plan = shortest.plan.only(numbers);
    shortest.runs += 1;
    match run(plan.clone()) {
        Some(objection) if objection.rule == shortest.objection.rule => {
            (shortest.plan, shortest.objection) = (plan, objection);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::virtual_time::{Rule, seconds};

    fn objection(rule: Rule, plan: &Plan) -> Objection {
        Objection { rule, at: plan.items.last().expect("items").at, what: String::new() }
    }

    /// What is left of a history that breaks a rule when all of `needed` are in it.
    fn shortest(needed: &[usize], patience: Duration) -> (Shortest, usize) {
        let plan = Plan::of(7, 5, seconds(600));
        let has = |plan: &Plan| needed.iter().all(|number| plan.numbers().contains(number));
        assert!(has(&plan) && plan.items.len() > 50, "{}", plan.items.len());
        let ran = Cell::new(0);
        let run = |plan: Plan| {
            ran.set(ran.get() + 1);
            has(&plan).then(|| objection(Rule::NoGap, &plan))
        };
        let failure = objection(Rule::NoGap, &plan);
        (shrink(run, plan, failure, patience), ran.get())
    }

    #[test]
    fn nothing_stays_that_is_not_needed() {
        for needed in [&[31, 32, 42][..], &[1], &[3, 48]] {
            let (shortest, ran) = shortest(needed, Duration::from_secs(60));
            assert_eq!(shortest.plan.numbers(), needed);
            assert!(shortest.of > 50);
            assert_eq!(shortest.runs, ran);
        }
    }

    #[test]
    fn a_history_that_breaks_another_rule_is_not_a_shorter_one() {
        let plan = Plan::of(7, 5, seconds(600));
        let whole = plan.numbers();
        let run = |plan: Plan| Some(objection(Rule::Durable, &plan));
        let failure = objection(Rule::NoGap, &plan);
        let shortest = shrink(run, plan, failure, Duration::from_secs(60));
        assert_eq!(shortest.plan.numbers(), whole);
        assert_eq!(shortest.objection.rule, Rule::NoGap);
    }

    #[test]
    fn without_time_the_history_stays_as_it_is() {
        let (shortest, _) = shortest(&[3], Duration::ZERO);
        assert!(shortest.plan.numbers().contains(&3));
        assert_eq!(shortest.plan.items.len(), shortest.of);
    }
}
