//! What is special about S3, over real servers. The laws that every remote keeps are in `tests/conformance`.

#[path = "../servers/s3.rs"]
mod servers;

mod helpers;
mod multipart;
mod objects;
mod probes;
mod rename;
mod scripted;
