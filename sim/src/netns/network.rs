//! A running network: namespaces, devices, and the thread between them.

use anyhow::{Context, ensure};

use super::engine::Engine;
use super::link::Shape;
use super::namespaces::{self, Namespaces};
use super::runs::{self, Run};
use super::steer::{self, Order};
use super::switch::{Port, Switch};
use super::topology::{HOST, Subnet, Topology};

/// A topology at work. Dropping it removes all that was made for it.
pub struct Network {
    // In this order: the devices go before the namespaces that they are in, and the lock last.
    engine: Engine,
    _namespaces: Namespaces,
    run: Run,
    topology: Topology,
}

impl Network {
    /// Makes the regions and connects them. Clears away first what killed runs have left.
    ///
    /// # Errors
    /// [`CannotRunHere`](super::CannotRunHere) among the causes when the user or the machine is not fit for it.
    pub fn start(mut topology: Topology) -> anyhow::Result<Self> {
        namespaces::check()?;
        let beginning = runs::begin()?;
        let cleared = Namespaces::clear(&beginning)?;
        if cleared > 0 {
            tracing::warn!(cleared, "removed network namespaces of a run that was killed");
        }
        let run = Run::start(&beginning)?;
        if topology.host() {
            choose_addresses(&mut topology)?;
        }
        let mut namespaces = Namespaces::new();
        let (mut devices, mut ports) = (Vec::new(), Vec::new());
        for (at, name) in topology.names().enumerate() {
            let address = topology.address(at);
            let device = namespaces.add(&run, name, address, topology.subnet());
            devices.push(device.with_context(|| format!("region {name} can't be made"))?);
            ports.push(Port { name: name.to_owned(), address });
        }
        let regions = ports.len();
        if topology.host() {
            devices.push(namespaces::host_device(&run, topology.subnet())?);
            ports.push(Port { name: HOST.to_owned(), address: topology.subnet().host() });
        }
        let shape = |from: usize, to: usize| match from.max(to) < regions {
            true => topology.shape(from, to),
            // The machine itself is right beside everybody.
            false => Shape::default(),
        };
        let switch = Switch::new(ports, shape, rand::random());
        let engine = Engine::start(switch, devices).context("the network can't start")?;
        Ok(Self { engine, _namespaces: namespaces, run, topology })
    }

    /// What it is made of, with the addresses that it has.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Carries out an order; see [`steer`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn order(&self, order: &Order) -> Result<String, String> {
        steer::carry_out(order, &mut self.engine.switch())
    }

    /// The name of a region's namespace.
    pub fn namespace(&self, region: usize) -> String {
        self.run.namespace(self.topology.names().nth(region).unwrap_or_default())
    }

    pub(super) fn run(&self) -> &Run {
        &self.run
    }
}

/// The machine's own routes must not lead elsewhere.
fn choose_addresses(topology: &mut Topology) -> anyhow::Result<()> {
    if namespaces::is_free(topology.subnet())? {
        return Ok(());
    }
    let taken = topology.subnet();
    for subnet in (1..=u8::MAX).map(Subnet::usual) {
        if !topology.move_to(subnet) {
            break;
        }
        if namespaces::is_free(subnet)? {
            return Ok(());
        }
    }
    ensure!(
        topology.move_to(taken),
        "network {taken}: this machine has a route to it already; choose another"
    );
    anyhow::bail!("this machine has routes to all of 10.77.0.0/16: give a network in the topology")
}
