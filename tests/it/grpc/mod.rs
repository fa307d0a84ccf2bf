//! Over tonic: where a call is refused, and what becomes of it.

mod endings;
mod stacks;
