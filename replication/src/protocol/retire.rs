//! Retired sites: what heads leave out, and when this node retires those that it wrote before.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Action, Core, Now, Reading};
use crate::{
    NodeId,
    log::{Retirement, Version, VersionVector},
};

/// The least time between two looks at whether a site is to be retired further.
const RETIRE_PERIOD: Duration = Duration::from_secs(5);

impl Core {
    /// Takes note of a retirement.
    pub(super) fn learn(&mut self, retirement: Retirement) {
        self.retired.learn(retirement);
        if retirement.site == self.site {
            // A later process of this node has gone on under another id: this disk went back in time (I2).
            self.lost_tail();
        }
    }

    /// A frame from a peer says this, whether or not it can be applied yet: the peer holds what it vouches for.
    pub(super) fn retired_by(&mut self, retirement: Retirement, peer: NodeId) {
        self.learn(retirement);
        if let Some(known) = self.peers.get_mut(peer)
            && known.heads.advance(retirement.site, retirement.upto)
        {
            self.choosing.mark(retirement.site);
        }
    }

    /// Reads the vector of a peer's heads; `None` for one that was made for another reader.
    pub(super) fn read_heads(&self, vector: VersionVector, reading: Reading) -> Option<VersionVector> {
        match reading {
            Reading::Old | Reading::Whole => Some(vector),
            Reading::Compact { reader } => (reader == self.site).then(|| self.retired.expand(&vector)),
        }
    }

    pub(super) fn send_heads(&mut self, now: Now) {
        self.last_heads = now;
        let whole = Arc::new(self.held.clone());
        let compact = self.retired.compact(&self.held).map(Arc::new);
        let peers: Vec<NodeId> = self.peers.iter().map(|(peer, _)| peer).collect();
        for peer in peers {
            self.send_heads_to(peer, &whole, compact.as_ref());
        }
    }

    /// Before a peer has said which site it writes, nothing is left out: it may ask what is known of a retired one.
    pub(super) fn send_heads_to(
        &mut self,
        peer: NodeId,
        whole: &Arc<VersionVector>,
        compact: Option<&Arc<VersionVector>>,
    ) {
        let known = self.peers.get(peer).filter(|known| known.reads_compact);
        let (vector, reading) = match (compact, known.and_then(|known| known.site)) {
            (Some(compact), Some(reader)) => {
                let mut compact = Arc::clone(compact);
                if compact.get(reader) != whole.get(reader) {
                    Arc::make_mut(&mut compact).set(reader, whole.get(reader));
                }
                (compact, Reading::Compact { reader })
            }
            _ => (Arc::clone(whole), Reading::Whole),
        };
        self.actions.push(Action::SendHeads { peer, site: self.site, vector, reading });
    }

    /// Retires the sites that this node wrote before as far as they are held, once no connected peer has more of them.
    /// Each new log begins by retiring the one before it, so a node learns from any peer which logs were its own.
    pub(super) fn retire_former(&mut self, now: Now) {
        if !self.settling.is_over() || now < self.next_retiring {
            return;
        }
        self.next_retiring = now + RETIRE_PERIOD;
        let node = self.peers.node();
        let mut vouched = VersionVector::new();
        let mut former = BTreeSet::new();
        for retirement in self.retired.iter().filter(|retirement| retirement.node == node) {
            former.extend([retirement.site, retirement.by]);
            if self.held.get(retirement.by) >= retirement.at {
                vouched.advance(retirement.site, retirement.upto);
            }
        }
        for site in former {
            let held = self.held.get(site);
            let most = self.peers.iter().map(|(_, peer)| peer.heads.get(site)).max().unwrap_or(Version(0));
            if site != self.site && held > vouched.get(site) && held >= most {
                self.actions.push(Action::Retire { site });
            }
        }
    }
}
