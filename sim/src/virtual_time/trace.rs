//! The hash of everything that happened in a run, in its order: what proves that a seed alone decides.

/// FNV-1a in 64 bits, which is the same on every machine and in every release of the compiler.
#[derive(Debug, Clone, Copy)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Trace {
    /// Takes note of bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // Where one piece ends counts too.
        self.0 = (self.0 ^ 0xff).wrapping_mul(0x0100_0000_01b3);
    }

    /// Takes note of a number.
    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// The hash so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// The hash of one piece.
#[must_use]
pub fn of(bytes: &[u8]) -> u64 {
    let mut trace = Trace::default();
    trace.bytes(bytes);
    trace.value()
}
