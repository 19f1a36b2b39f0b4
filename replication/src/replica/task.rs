//! The task that owns the protocol's core: turns what happens into events, and actions into deeds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, broadcast, mpsc, watch},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    APPLICATION_KINDS, Frames, Message, PeerStatus, REPORTS, ReplicaConfig, Report, Reports, Status, figures,
    streams, wire,
};
use crate::{
    NodeId, Role,
    log::GroupId,
    mesh::{Mesh, MeshEvent},
    protocol::{Action, Config, Core, Event, READ_SIZE, RECEIVE_WINDOW, StreamId},
    store::{Commit, Store, StoreError},
};

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
            core: Core::new(place, store.site(), store.vector().as_ref().clone(), config.alone),
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
            tokio::select! {
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
                    self.tell(Event::Tick);
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

    /// `None` when commits were missed: then only the vector is certain, and followers are served from the log.
    fn committed(&mut self, commit: Option<&Commit>) {
        let event = match commit {
            Some(commit) => {
                Event::Committed { frames: commit.frames.clone(), vector: Arc::clone(&commit.vector) }
            }
            None => {
                metrics::counter!("mychat_replication_missed_commits_total").increment(1);
                Event::Committed { frames: Vec::new(), vector: self.store.vector() }
            }
        };
        self.tell(event);
    }

    fn report(&mut self, report: Report) {
        match report {
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
                self.next_follower += 1;
                let stream = StreamId(self.next_follower);
                let (queue, queued) = mpsc::unbounded_channel();
                self.followers.insert(stream, queue);
                self.spawn(streams::write(stream, peer, send, queued, self.reports.clone()));
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
            MeshEvent::Datagram { peer, kind: wire::KIND, payload } => match wire::decode_heads(&payload) {
                Ok((heads, reading, part)) if heads.group == GroupId::GLOBAL => {
                    let parts = self.parts.entry(peer).or_default();
                    let complete = part.is_none_or(|part| parts.take(part));
                    let (site, vector) = (heads.site, heads.vector);
                    self.tell(Event::Heads { peer, site, vector, reading, complete });
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
                for datagram in wire::heads(site, &vector, reading, self.round) {
                    if let Err(error) = self.mesh.datagram(peer, wire::KIND, datagram.into()) {
                        // The next heartbeat comes soon.
                        tracing::trace!(%peer, %error, "heads could not be sent");
                    }
                }
            }
            Action::Follow { stream, peer, site, after } => {
                let credit = Arc::new(Semaphore::new(RECEIVE_WINDOW));
                let request = wire::FollowRequest { group: GroupId::GLOBAL, site, after };
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
                self.store.release_writes();
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
    fn read_retirements(&self) {
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

    fn renew_site(&self) {
        let (store, reports) = (self.store.clone(), self.reports.clone());
        self.spawn(async move {
            let site = loop {
                match store.renew_site().await {
                    Ok(site) => break site,
                    Err(StoreError::Closed) => return,
                    Err(error) => tracing::error!(%error, "the site id can't be renewed; no write is accepted until it is"),
                }
                tokio::time::sleep(RENEWAL_PAUSE).await;
            };
            let vector = store.vector();
            let _ = reports.send(Report::Event(Event::SiteRenewed { site, vector })).await;
        });
    }

    /// Tells the watchers how replication stands.
    fn publish(&mut self) {
        let now = self.started.elapsed();
        let mut followers = self.core.followers();
        let status = Status {
            settled: self.core.is_settled(),
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
