//! The thread that carries packets: reads what regions send out of their TUN devices, and writes it into those of the
//! receivers when it is due.
//!
//! It waits in one `poll` for all devices and the time of the next packet. Timers of a thread may be late by its
//! *slack*, 50 µs by default so that the system can merge them; here it is the least possible. The thread also has
//! the highest priority, since time that it waits for a processor is delay that nobody asked for.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tun_rs::SyncDevice;

use super::switch::Switch;

/// Packets that are taken from one device before the others have their turn.
const BURST: usize = 64;
/// The largest packet that a device gives: IP's own limit.
const PACKET: usize = 65_535;

/// The thread. Dropping it ends it, and with it the devices.
pub(super) struct Engine {
    switch: Arc<Mutex<Switch>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts carrying packets between devices, one for each of the switch's ports in their order.
    pub(super) fn start(switch: Switch, devices: Vec<SyncDevice>) -> io::Result<Self> {
        for device in &devices {
            device.set_nonblocking(true)?;
        }
        let switch = Arc::new(Mutex::new(switch));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (shared, woken) = (switch.clone(), wake.clone());
        let devices = devices.into_iter().map(Some).collect();
        let carrier = Carrier { switch: shared, devices, start: Instant::now(), buffer: vec![0; PACKET] };
        let thread = std::thread::Builder::new().name("wan".to_owned()).spawn(move || carrier.run(&woken))?;
        Ok(Self { switch, wake, thread: Some(thread) })
    }

    /// The network, to look at it or change it. Packets wait meanwhile.
    pub(super) fn switch(&self) -> MutexGuard<'_, Switch> {
        lock(&self.switch)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Can't fail: the counter is far from its end.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(switch: &Mutex<Switch>) -> MutexGuard<'_, Switch> {
    // The switch is whole between any two statements, so a panic elsewhere leaves nothing half done.
    switch.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Carrier {
    switch: Arc<Mutex<Switch>>,
    /// None for one that has failed, as its namespace is gone.
    devices: Vec<Option<SyncDevice>>,
    start: Instant,
    buffer: Vec<u8>,
}

impl Carrier {
    fn run(mut self, wake: &OwnedFd) {
        // Without these it works too, only less exactly.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let _ = rustix::process::setpriority_process(None, -20);
        loop {
            match self.wait(wake) {
                Ok(Some(ready)) => ready.into_iter().for_each(|port| self.read(port)),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "the network has stopped");
                    return;
                }
            }
            self.write();
        }
    }

    /// Sleeps until a device has something or a packet is due. Returns the ports to read; none at the end.
    fn wait(&self, wake: &OwnedFd) -> io::Result<Option<Vec<usize>>> {
        let open =
            || self.devices.iter().enumerate().filter_map(|(port, device)| Some((port, device.as_ref()?)));
        let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
        fds.extend(open().map(|(_, device)| PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)));
        let wait = lock(&self.switch).next_due().map(|due| due.saturating_sub(self.start.elapsed()));
        let wait = wait.map(|wait| Timespec {
            // Far below the bounds: what a link holds leaves even the slowest line within days.
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        });
        match poll(&mut fds, wait.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Some(Vec::new())),
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(None);
        }
        let ready = open().zip(&fds[1..]).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(Some(ready.map(|((port, _), _)| port).collect()))
    }

    fn read(&mut self, port: usize) {
        for _ in 0..BURST {
            let Some(device) = &self.devices[port] else { return };
            match device.recv(&mut self.buffer) {
                Ok(size) => {
                    let now = self.start.elapsed();
                    lock(&self.switch).take(now, port, &self.buffer[..size]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, port, "a region's device is gone");
                    self.devices[port] = None;
                }
            }
        }
    }

    fn write(&self) {
        let mut switch = lock(&self.switch);
        while let Some(out) = switch.give(self.now()) {
            let device = self.devices[out.to].as_ref();
            let taken = device.is_some_and(|device| device.send(&out.packet).is_ok());
            switch.gave(&out, taken);
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}
