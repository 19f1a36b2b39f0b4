//! What operators do from outside: calls of `mychat admin`, allowed by a token that is made from the cluster key.

pub mod http;
pub mod import;
pub mod operator;

#[cfg(test)]
mod tests;

pub use operator::Operator;
