//! The task that owns the protocol's core: turns what happens into events, and actions into deeds.

mod snapshots;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, broadcast, mpsc, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    APPLICATION_KINDS, Frames, Message, PeerStatus, REPORTS, ReplicaConfig, Report, Reports, Status,
    acks::Acks, figures, streams, wire,
};
use crate::{
    NodeId, Role,
    log::GroupId,
    mesh::{Mesh, MeshEvent},
    protocol::{Action, Config, Core, Event, READ_SIZE, RECEIVE_WINDOW, Reading, StreamId},
    snapshot,
    store::{Commit, Store, StoreError},
};

pub(super) use snapshots::Outcome;

/// How often the core is told the time.
const TICK: Duration = Duration::from_millis(100);
/// How long after a failed renewal of the site id it is tried again.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);

/// A stream that is read.
struct Upstream {
    task: AbortHandle,
    credit: Arc<Semaphore>,
}

pub(super) struct CoreTask {
    core: Core,
    snapshots: snapshots::Snapshots,
    store: Store,
    mesh: Mesh,
    tasks: TaskTracker,
    stop: CancellationToken,
    status: watch::Sender<Status>,
    messages: mpsc::Sender<Message>,
    reports: Reports,
    reported: mpsc::Receiver<Report>,
    followers: HashMap<StreamId, mpsc::UnboundedSender<Frames>>,
    upstreams: HashMap<StreamId, Upstream>,
    connected: Vec<NodeId>,
    acks: Acks,
    /// Of the peers' heads, which parts have come.
    parts: HashMap<NodeId, wire::Parts>,
    /// Counts the heads that were sent.
    round: u32,
    next_follower: u64,
    started: Instant,
}

impl CoreTask {
    pub fn new(
        store: Store,
        mesh: Mesh,
        tasks: TaskTracker,
        stop: CancellationToken,
        status: watch::Sender<Status>,
        messages: mpsc::Sender<Message>,
        config: ReplicaConfig,
    ) -> Self {
        let (reports, reported) = mpsc::channel(REPORTS);
        let place =
            Config { node: mesh.node(), region: mesh.region().into(), relay_above: config.relay_above };
        Self {
            core: Core::new(place, store.site(), store.vector().as_ref().clone(), config.beginning(&store)),
            snapshots: snapshots::Snapshots::new(&store, config.snapshots, config.alone, stop.clone()),
            store,
            mesh,
            tasks,
            stop,
            status,
            messages,
            reports,
            reported,
            followers: HashMap::new(),
            upstreams: HashMap::new(),
            connected: Vec::new(),
            acks: Acks::default(),
            parts: HashMap::new(),
            round: rand::random(),
            next_follower: 0,
            started: Instant::now(),
        }
    }

    /// Works until the mesh ends or the task is dropped.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<MeshEvent>,
        mut commits: broadcast::Receiver<Arc<Commit>>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.act();
        self.read_retirements();
        loop {
            let acks_at = self.acks.when(Instant::now());
            tokio::select! {
                () = tokio::time::sleep_until(acks_at.unwrap_or(self.started)), if acks_at.is_some() => self.sync(),
                commit = commits.recv() => match commit {
                    Ok(commit) => self.committed(Some(&commit)),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.committed(None),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(report) = self.reported.recv() => {
                    // What a report speaks of has been announced as a commit before.
                    self.catch_up_with(&mut commits);
                    self.report(report);
                }
                event = events.recv() => match event {
                    Some(event) => {
                        self.catch_up_with(&mut commits);
                        self.mesh_event(event);
                    }
                    None => return,
                },
                _ = ticks.tick() => {
                    self.tell_and_look(Event::Tick);
                    self.sync_the_rest();
                    self.publish();
                }
            }
        }
    }

    fn catch_up_with(&mut self, commits: &mut broadcast::Receiver<Arc<Commit>>) {
        loop {
            match commits.try_recv() {
                Ok(commit) => self.committed(Some(&commit)),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.committed(None),
                Err(_) => return,
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.core.handle(event, self.started.elapsed());
        self.act();
    }

    /// The same, with a look at what the peers hold before anything is done.
    fn tell_and_look(&mut self, event: Event) {
        let now = self.started.elapsed();
        self.core.handle(event, now);
        self.look_for_snapshot(now);
        self.act();
    }

    /// `None` when commits were missed: then only the vector is certain, and followers are served from the log.
    fn committed(&mut self, commit: Option<&Commit>) {
        if let Some(commit) = commit.filter(|commit| !commit.local) {
            commit.frames.iter().for_each(|frame| self.acks.applied(frame.site));
            self.sync();
        }
        let event = match commit {
            Some(commit) => Event::Committed {
                frames: commit.frames.clone(),
                vector: Arc::clone(&commit.vector),
                local: commit.local,
            },
            None => {
                metrics::counter!("mychat_replication_missed_commits_total").increment(1);
                Event::Committed { frames: Vec::new(), vector: self.store.vector(), local: false }
            }
        };
        self.tell(event);
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Snapshot(outcome) => self.snapshot_outcome(outcome),
            Report::Synced => self.acknowledge(),
            Report::Event(event) => {
                if let Event::FollowerClosed { stream } = event {
                    self.followers.remove(&stream);
                }
                if let Event::UpstreamClosed { stream } = event {
                    self.upstreams.remove(&stream);
                }
                self.tell(event);
            }
            Report::Follower { peer, request, send } => {
                if request.group != GroupId::GLOBAL {
                    tracing::debug!(%peer, group = request.group.0, "a peer asks for a group that is not kept here");
                    return;
                }
                if wire::format_for(request.reads).is_none() {
                    tracing::warn!(%peer, reads = request.reads, "a peer is too old: it reads no format of frames that is written here");
                    return;
                }
                self.next_follower += 1;
                let stream = StreamId(self.next_follower);
                let (queue, queued) = mpsc::unbounded_channel();
                self.followers.insert(stream, queue);
                self.spawn(streams::write(stream, peer, request, send, queued, self.reports.clone()));
                self.tell(Event::FollowerOpened { stream, peer, site: request.site, after: request.after });
            }
        }
    }

    fn mesh_event(&mut self, event: MeshEvent) {
        match event {
            MeshEvent::PeerUp(peer) if peer.role == Role::Node => {
                self.connected.push(peer.node);
                // The core took no notice of what came before.
                self.parts.remove(&peer.node);
                self.tell(Event::PeerUp { peer: peer.node, rtt: peer.rtt, region: peer.region.into() });
            }
            MeshEvent::PeerUp(_) => {}
            MeshEvent::PeerDown(peer) => {
                self.connected.retain(|connected| *connected != peer);
                figures::gone(peer);
                self.parts.remove(&peer);
                self.tell(Event::PeerDown { peer });
            }
            MeshEvent::Stream { peer, kind: wire::KIND, send, recv } => {
                self.spawn(streams::accept(peer.node, send, recv, self.reports.clone()));
            }
            MeshEvent::Stream { peer, kind: snapshot::KIND, send, recv } => {
                self.serve_snapshot(peer.node, send, recv);
            }
            MeshEvent::Datagram { peer, kind: wire::KIND, payload } => match wire::decode_heads(&payload) {
                Ok((heads, reading, part)) if heads.group == GroupId::GLOBAL => {
                    let parts = self.parts.entry(peer).or_default();
                    let complete = part.is_none_or(|part| parts.take(part));
                    let (site, vector) = (heads.site, heads.vector);
                    let event = Event::Heads { peer, site, vector, reading, complete };
                    if self.may_take_snapshot() {
                        self.tell_and_look(event);
                    } else {
                        self.tell(event);
                    }
                    self.publish_heads(peer);
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%peer, %error, "a datagram was not understood"),
            },
            MeshEvent::Datagram { peer, kind, payload } if kind >= APPLICATION_KINDS => {
                if self.messages.try_send(Message { from: peer, kind, payload }).is_err() {
                    metrics::counter!("mychat_replication_dropped_messages_total").increment(1);
                }
            }
            MeshEvent::Stream { kind, .. } | MeshEvent::Datagram { kind, .. } => {
                tracing::debug!(kind, "a stream or datagram of an unknown kind");
            }
        }
    }

    /// Does what the core wants done.
    fn act(&mut self) {
        loop {
            let actions = self.core.actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::SendHeads { peer, site, vector, reading } => {
                self.round = self.round.wrapping_add(1);
                let vector = vector.meet(&self.store.durable());
                for datagram in wire::heads(site, &vector, reading, self.round) {
                    if let Err(error) = self.mesh.datagram(peer, wire::KIND, datagram.into()) {
                        // The next heartbeat comes soon.
                        tracing::trace!(%peer, %error, "heads could not be sent");
                    }
                }
            }
            Action::Follow { stream, peer, site, after } => {
                let credit = Arc::new(Semaphore::new(RECEIVE_WINDOW));
                let request =
                    wire::FollowRequest { group: GroupId::GLOBAL, site, after, reads: wire::FRAMES };
                let reading = streams::read(
                    stream,
                    self.mesh.clone(),
                    peer,
                    request,
                    Arc::clone(&credit),
                    self.reports.clone(),
                );
                let task = self.spawn(reading);
                self.upstreams.insert(stream, Upstream { task, credit });
            }
            Action::Unfollow { stream } => {
                if let Some(upstream) = self.upstreams.remove(&stream) {
                    upstream.task.abort();
                }
            }
            Action::Credit { stream, bytes } => {
                if let Some(upstream) = self.upstreams.get(&stream) {
                    upstream.credit.add_permits(streams::credit_for(bytes) as usize);
                }
            }
            Action::Send { stream, frames } => {
                // A task that has ended reports so itself.
                if let Some(queue) = self.followers.get(&stream) {
                    let _ = queue.send(frames);
                }
            }
            Action::ReadLog { stream, site, after } => {
                let (store, reports) = (self.store.clone(), self.reports.clone());
                self.spawn(async move {
                    let event = match store.read_log(site, after, READ_SIZE).await {
                        Ok(read) => {
                            Event::LogRead { stream, frames: read.frames.into_iter().map(Arc::new).collect() }
                        }
                        Err(error) => {
                            tracing::warn!(%site, %error, "a log can't be read for a peer");
                            Event::LogUnreadable { stream }
                        }
                    };
                    let _ = reports.send(Report::Event(event)).await;
                });
            }
            Action::CloseFollower { stream } => {
                self.followers.remove(&stream);
            }
            Action::Apply { frames } => {
                let bytes: usize = frames.iter().map(|frame| frame.size()).sum();
                metrics::histogram!("mychat_replication_apply_bytes").record(bytes as f64);
                let (store, reports) = (self.store.clone(), self.reports.clone());
                self.spawn(async move {
                    let outcome = store.apply(frames).await;
                    if let Err(error) = &outcome {
                        tracing::warn!(%error, "a batch from the peers can't be applied; it is asked for again");
                    }
                    let _ = reports.send(Report::Event(Event::Applied { ok: outcome.is_ok() })).await;
                });
            }
            Action::Retire { site } => {
                let store = self.store.clone();
                self.spawn(async move {
                    if let Err(error) = store.retire(site).await {
                        tracing::debug!(%site, %error, "a former site can't be retired now; it is tried again");
                    }
                });
            }
            Action::RenewSite => {
                self.store.hold_writes();
                self.publish();
                self.renew_site();
            }
            Action::Settled => {
                self.gate_writes();
                self.publish();
            }
        }
    }

    /// Starts a task that ends with the replica at the latest.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let stop = self.stop.clone();
        self.tasks
            .spawn(async move {
                stop.run_until_cancelled(work).await;
            })
            .abort_handle()
    }

    /// Tells the core which sites are retired.
    pub(super) fn read_retirements(&self) {
        let (store, reports) = (self.store.clone(), self.reports.clone());
        self.spawn(async move {
            match store.retirements().await {
                Ok(retirements) => {
                    let _ = reports.send(Report::Event(Event::Retired { retirements })).await;
                }
                // Vectors name more sites than they need to.
                Err(error) => tracing::warn!(%error, "the retired sites can't be read"),
            }
        });
    }

    /// Brings to the disk what was applied, unless that has just been done.
    fn sync(&mut self) {
        if !self.acks.begin(Instant::now()) {
            return;
        }
        let (store, reports) = (self.store.clone(), self.reports.clone());
        self.spawn(async move {
            if let Err(error) = store.sync().await {
                tracing::warn!(%error, "what other nodes wrote can't be brought to the disk; it is tried again");
            }
            let _ = reports.send(Report::Synced).await;
        });
    }

    /// Looks for what was held before this task began, what it missed hearing of, and what a disk has failed to take.
    fn sync_the_rest(&mut self) {
        let (held, durable) = (self.store.vector(), self.store.durable());
        held.iter()
            .filter(|(site, version)| durable.get(*site) < *version)
            .for_each(|(site, _)| self.acks.applied(site));
        self.sync();
    }

    /// Tells the writers of logs how much of them is durable here.
    fn acknowledge(&mut self) {
        let durable = self.store.durable();
        for site in self.acks.end(Instant::now()) {
            let Some(writer) = self.core.writer_of(site) else { continue };
            let part = std::iter::once((site, durable.get(site))).collect();
            self.round = self.round.wrapping_add(1);
            for datagram in wire::heads(self.store.site(), &part, Reading::Whole, self.round) {
                // Where it can't be sent, or is lost, the heads follow soon.
                let _ = self.mesh.datagram(writer, wire::KIND, datagram.into());
            }
        }
    }

    fn renew_site(&self) {
        let (store, reports) = (self.store.clone(), self.reports.clone());
        self.spawn(async move {
            loop {
                match store.renew_site().await {
                    Ok(_) => break,
                    Err(StoreError::Closed) => return,
                    Err(error) => tracing::error!(%error, "the site id can't be renewed; no write is accepted until it is"),
                }
                tokio::time::sleep(RENEWAL_PAUSE).await;
            }
            // As it is now: a snapshot may have brought yet another one.
            let (site, vector) = (store.site(), store.vector());
            let _ = reports.send(Report::Event(Event::SiteRenewed { site, vector })).await;
        });
    }

    /// Tells the watchers at once what a peer holds: somebody may wait for it to have a write.
    fn publish_heads(&self, peer: NodeId) {
        self.status.send_if_modified(|status| {
            let (Some(known), Some(heads)) = (status.peers.get_mut(&peer), self.core.heads(peer)) else {
                return false;
            };
            let moved = known.heads != *heads;
            if moved {
                known.heads.clone_from(heads);
                known.behind = self.core.behind(peer);
            }
            moved
        });
    }

    /// Tells the watchers how replication stands.
    fn publish(&mut self) {
        let now = self.started.elapsed();
        let mut followers = self.core.followers();
        let status = Status {
            settled: self.core.is_settled() && !self.snapshots.hold(),
            ready: self.core.is_settled() && self.snapshots.is_ready(),
            sync: self.snapshots.status(),
            peers: self
                .connected
                .iter()
                .map(|peer| {
                    let heads = self.core.heads(*peer).cloned().unwrap_or_default();
                    let (behind, lag) = (self.core.behind(*peer), self.core.lag(*peer, now));
                    let followers = followers.remove(peer).unwrap_or_default();
                    (*peer, PeerStatus { heads, behind, lag, followers })
                })
                .collect(),
        };
        for (peer, peer_status) in &status.peers {
            figures::peer(*peer, peer_status);
        }
        figures::tally(self.core.tally());
        figures::reports(self.reported.len());
        self.status.send_replace(status);
    }
}
