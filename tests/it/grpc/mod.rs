//! gRPC calls with tonic: rejections in the head and in the trailers, and retries.

mod stacks;
mod trailers;
