//! How many event streams this node can carry, and how near to that it is.
//!
//! ```text
//! sample (what the system says of the process) ─▶ driver, every second ─▶ Estimator ─▶ Figures
//!                                                                                        │
//!            admission of streams, /v1/node, directory (load: the router's order) ◀──────┘
//! ```
//!
//! Three things end first, and the least of them counts:
//!
//! - **descriptors**: a stream is a connection; the operator's own bound (`--max-streams`) is of this kind too;
//! - **memory**: what a stream takes is learned from how the process grows with its streams, and until there are enough
//!   of them to learn from, a cautious figure is taken;
//! - **processors**: deliveries cost time. While they keep the processors busy, the streams that they go to are set
//!   against the time that they take: at half the time twice the streams would fit.
//!
//! Above it new streams are sent elsewhere. Before it comes to that, under **pressure** (the processors are busy and
//! everything begins to wait), presence and typing are held back: messages never are. The arithmetic (`estimate`) is apart
//! from the looking (`sample`, `driver`), so that a minute of a machine's life is tested in no time.

mod driver;
mod estimate;
pub mod limits;
mod sample;

pub use driver::Capacity;
pub use estimate::{Bound, Figures, KERNEL_BYTES, OF_MEMORY, OF_PROCESSORS, UNKNOWN_BYTES};
pub use sample::free as free_memory;
