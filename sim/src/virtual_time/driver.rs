//! What drives the cores: they are told what arrives, and what they want done is done.

use mychat_replication::protocol::{Action, Event};

use super::{Stage, network::Heads};

/// Something that happens at a node.
#[derive(Debug)]
pub enum Turn<A> {
    /// Its core is told of something.
    Core(Event),
    /// Something comes from the network.
    Network(Arrival),
    /// Something else.
    Own(A),
}

/// What comes to a node from the network.
#[derive(Debug)]
pub enum Arrival {
    /// The connection that it dialled stands.
    Connected { peer: usize, epoch: u64 },
    /// A connection is gone.
    Disconnected { peer: usize, epoch: u64 },
    /// A peer says what it holds.
    Datagram { peer: usize, epoch: u64, heads: Heads },
    /// A peer opened a stream.
    Opened { stream: u64 },
    /// A frame is in the receive buffer.
    Frame { stream: u64 },
    /// The reader has credit again.
    Readable { stream: u64 },
    /// The peer, which follows, has gone.
    Reset { stream: u64 },
    /// The peer, which is followed, has closed.
    Closed { stream: u64 },
    /// The transport has taken bytes.
    Sent { stream: u64, bytes: usize },
}

/// A world: it has a stage, and nodes whose cores it drives.
pub trait Driver {
    /// What happens at its nodes, beyond what all nodes have.
    type AtNode;
    /// What else happens in it.
    type Happening;

    /// Where it all happens.
    fn stage(&mut self) -> &mut Stage<Self::AtNode, Self::Happening>;
    /// Tells the core of a node, and does what it says.
    fn feed(&mut self, node: usize, event: Event);
    /// Does what a core says: what is not carried by the stage.
    fn perform(&mut self, node: usize, action: Action);
    /// Something happens at a node.
    fn at_node(&mut self, node: usize, event: Self::AtNode);

    /// A node has its turn.
    fn turn(&mut self, node: usize, turn: Turn<Self::AtNode>) {
        match turn {
            Turn::Core(event) => self.feed(node, event),
            Turn::Network(arrival) => self.arrives(node, arrival),
            Turn::Own(event) => self.at_node(node, event),
        }
    }

    /// A node that was paused goes on.
    fn resume(&mut self, node: usize) {
        for turn in self.stage().resume(node) {
            self.turn(node, turn);
        }
    }

    /// Does all that a core says.
    fn act(&mut self, node: usize) {
        for action in self.stage().actions(node) {
            self.perform(node, action);
        }
    }

    /// Something comes from the network, of which the core is told.
    fn arrives(&mut self, node: usize, arrival: Arrival) {
        let event = match arrival {
            Arrival::Connected { peer, epoch } => {
                if let Some(before) = self.stage().connection(node, peer) {
                    self.disconnected(node, peer, before);
                }
                self.stage().connected(node, peer, epoch)
            }
            Arrival::Disconnected { peer, epoch } => return self.disconnected(node, peer, epoch),
            Arrival::Datagram { peer, epoch, heads } => self.stage().heard(node, peer, epoch, heads),
            Arrival::Opened { stream } => self.stage().was_opened(node, stream),
            Arrival::Frame { stream } => {
                self.stage().arrive(stream);
                return self.read(node, stream);
            }
            Arrival::Readable { stream } => return self.read(node, stream),
            Arrival::Reset { stream } => self.stage().was_reset(node, stream),
            Arrival::Closed { stream } => self.stage().was_closed(node, stream),
            Arrival::Sent { stream, bytes } => self.stage().was_sent(stream, bytes),
        };
        if let Some(event) = event {
            self.feed(node, event);
        }
    }

    /// A connection is gone, and the streams that it carried.
    fn disconnected(&mut self, node: usize, peer: usize, epoch: u64) {
        for event in self.stage().disconnected(node, peer, epoch) {
            self.feed(node, event);
        }
    }

    /// Reads frames of a stream as far as the core has given credit.
    fn read(&mut self, node: usize, stream: u64) {
        while let Some(event) = self.stage().read_frame(stream) {
            self.feed(node, event);
        }
    }
}
