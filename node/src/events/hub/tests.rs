//! Commits that the hub misses.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::{
    events::reactor::{Tell, Told},
    testing::TestNode,
};

/// How long a test waits for what has to come.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn i5_commits_that_are_missed_while_others_are_gathered_are_noticed() {
    let (sender, mut commits) = broadcast::channel(2);
    let commit = || {
        Arc::new(Commit { frames: Vec::new(), notes: BTreeMap::new(), vector: Arc::default(), local: true })
    };
    sender.send(commit()).expect("a receiver");
    let first = commits.recv().await.expect("a commit");
    for _ in 0..5 {
        sender.send(commit()).expect("a receiver");
    }
    let (batch, missed) = gather(first, &mut commits);
    assert_eq!((batch.len(), missed), (1, 3));
    let next = commits.try_recv().expect("what is kept comes after that");
    let (batch, missed) = gather(next, &mut commits);
    assert_eq!((batch.len(), missed), (2, 0));
}

#[tokio::test]
async fn i7_bounded_a_hub_that_catches_up_waits_for_a_reactor_that_is_behind() {
    let node = TestNode::start();
    node.sign_up("Ada").await;
    let (reactors, thread) = Reactors::held_up();
    while !reactors.is_full() {
        let wire = Bytes::from(vec![b'x'; 1 << 20]);
        let accounts = [AccountId(uuid::Uuid::nil())].into();
        reactors.tell(&Tell::Event(Told { wire, space: None, about: None, accounts, except: None }));
    }
    let cursors = node.app.events.cursors().clone();
    let state = State::new(VersionVector::default(), cursors, reactors);
    let task = Task {
        store: node.app.store.clone(),
        state: Arc::new(Mutex::new(state)),
        condition: Arc::clone(&node.app.condition),
    };
    let told = async {
        while lock(&task.state).position().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let mut catching_up = Box::pin(task.catch_up());
    tokio::select! {
        biased;
        () = &mut catching_up => panic!("the hub goes on"),
        () = told => {}
    }
    let thread = std::thread::spawn(thread);
    timeout(DEADLINE, &mut catching_up).await.expect("there is room again");
    drop(catching_up);
    drop(task);
    thread.join().expect("the reactor ends");
}
