//! Replays against a stand-in for a cluster.

use indicatif::ProgressDrawTarget;

use super::people::Account;
use super::*;

mod fake;

use fake::{Fake, Flaw};

/// Long enough for the slowest machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

fn logs(folder: &tempfile::TempDir, lines: usize) -> Vec<PathBuf> {
    let file = folder.path().join("2020-01-01.log");
    let line = |number: usize| match number % 20 {
        0 => "=== somebody has joined\n".to_owned(),
        _ => format!(
            "[10:{:02}] <nick{}> line {number}{}\n",
            number / 60 % 60,
            number % 7,
            [" bad", ""][number % 2]
        ),
    };
    std::fs::write(&file, (1..=lines).map(line).collect::<String>()).unwrap();
    vec![file]
}

fn options(fake: &Fake, irc: Vec<PathBuf>, rate: f64) -> ReplayOptions {
    ReplayOptions {
        irc,
        nodes: fake.urls(),
        rate,
        lines: None,
        max_speakers: Some(5),
        signups: 4,
        in_flight: 100,
        timeout: DEADLINE,
        patience: DEADLINE,
        settle: DEADLINE,
    }
}

async fn replay(options: ReplayOptions) -> ReplayReport {
    let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    tokio::time::timeout(DEADLINE, run(options, &progress)).await.expect("the replay ends").unwrap()
}

#[tokio::test]
async fn every_line_reaches_every_observer_once() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(3, Flaw::None);
    let report = replay(options(&fake, logs(&folder, 500), 2000.0)).await;
    assert_eq!(report.faults(), Vec::<String>::new());
    assert_eq!((report.lines, report.accepted, report.skipped.notices), (475, 475, 25));
    assert_eq!(report.observers.iter().map(|row| row.received).collect::<Vec<_>>(), [475; 3]);
    // More than a page.
    assert_eq!(report.nodes.iter().map(|row| row.messages).collect::<Vec<_>>(), [475; 3]);
    assert_eq!(report.pairs.len(), 9);
    assert!(report.pairs.iter().all(|pair| pair.count > 0 && pair.overhead_p99_ms.is_some()));
    let text = report.to_string();
    assert!(text.contains("All nodes hold the same") && text.contains("r0"), "{text}");
    assert!(serde_json::to_string(&report).unwrap().contains("overhead_p99_ms"));
}

#[tokio::test]
async fn a_node_may_die_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut fake = Fake::start(3, Flaw::None);
    let memory = fake.memory.clone();
    let running = tokio::spawn(replay(options(&fake, logs(&folder, 1000), 500.0)));
    memory.stored(200).await;
    fake.kill(1);
    memory.stored(600).await;
    fake.revive(1);
    let report = running.await.unwrap();
    assert_eq!(report.faults(), Vec::<String>::new(), "{report}");
    assert_eq!(report.accepted, 950);
    assert!(report.observers[1].reconnects >= 1 && report.disturbed > 0, "{report}");
    assert_eq!(report.observers[0].reconnects, 0);
}

#[tokio::test]
async fn flaws_of_the_nodes_are_found() {
    let folder = tempfile::tempdir().unwrap();
    for (flaw, fault) in [
        (Flaw::Loses, "10 messages did not reach an observer"),
        (Flaw::Doubles, "10 messages reached an observer twice"),
        (Flaw::Differs, "the nodes do not hold the same messages"),
    ] {
        let fake = Fake::start(2, flaw);
        let mut options = options(&fake, logs(&folder, 105), 2000.0);
        if flaw == Flaw::Loses {
            // What never comes is waited for to the end.
            options.settle = Duration::from_secs(3);
        }
        let report = replay(options).await;
        assert_eq!(report.faults(), [fault], "{flaw:?}");
        assert_eq!(report.equal, flaw != Flaw::Differs);
    }
}

#[tokio::test]
async fn refused_lines_are_reported_and_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(2, Flaw::Refuses);
    let mut options = options(&fake, logs(&folder, 200), 2000.0);
    options.lines = Some(100);
    let report = replay(options).await;
    assert_eq!(report.faults(), Vec::<String>::new());
    assert_eq!((report.lines, report.refused.len()), (100, 1));
    assert_eq!(report.accepted + report.refused[0].lines, 100);
    assert!(report.refused[0].reason.contains("400 invalid_body"), "{:?}", report.refused);
}

#[tokio::test]
async fn an_observer_reads_on_elsewhere_and_returns() {
    let mut fake = Fake::start(3, Flaw::None);
    let memory = fake.memory.clone();
    let api = Api::connect(&fake.urls(), DEADLINE, Instant::now() + DEADLINE).await.unwrap();
    let api = Arc::new(api);
    let deadline = Instant::now() + DEADLINE;
    let (email, password) = ("o@replay.example".to_owned(), "password".to_owned());
    let account = Account::sign_up(&api, 2, email, password, "o", deadline).await.unwrap().0;
    let observer = Observer::start(api, Arc::new(account), memory.space);
    let story = async {
        assert!(observer.is_reading(DEADLINE).await);
        memory.store("1", "1");
        fake.kill(2);
        memory.store("2", "2");
        // The node after the last is the first.
        memory.streaming(0, 1).await;
        memory.store("3", "3");
        fake.revive(2);
        memory.streaming(2, 1).await;
        memory.streaming(0, 0).await;
        memory.store("4", "4");
        while observer.seen().messages.len() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, story).await.expect("the observer goes and returns");
    let seen = observer.seen();
    assert_eq!((seen.doubled, seen.resets, seen.reconnects), (0, 0, 2));
    assert_eq!(seen.messages.last().unwrap().node, 2);
}

#[tokio::test]
async fn what_can_not_be_played_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake::start(1, Flaw::None);
    let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let empty = folder.path().join("empty.log");
    std::fs::write(&empty, "=== nothing\n").unwrap();
    let error = run(options(&fake, vec![empty], 1.0), &progress).await.unwrap_err();
    assert!(error.to_string().contains("no messages"), "{error}");
    let error =
        run(options(&fake, vec!["/nonexistent/2020-01-01.log".into()], 1.0), &progress).await.unwrap_err();
    assert!(error.to_string().contains("2020-01-01.log"), "{error}");
    let mut twice = options(&fake, logs(&folder, 5), 1.0);
    twice.nodes.extend(fake.urls());
    assert!(run(twice, &progress).await.unwrap_err().to_string().contains("twice"));
    let mut silent = options(&fake, logs(&folder, 5), 1.0);
    drop(fake);
    silent.timeout = Duration::from_millis(100);
    let error = run(silent, &progress).await.unwrap_err();
    assert!(error.to_string().contains("can't be reached"), "{error}");
}
