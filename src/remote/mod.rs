//! The provider contract. One object-safe trait, its wrappers (retry, limit, timeout, measure) and one folder a provider.
//!
//! A remote knows paths, ids and bytes. It never sees an inode, the cache or the journal. It holds names as the provider
//! holds them; `names` maps what Linux allows to what a provider allows, and back.
//!
//! Laws that hold for every remote (`tests/conformance` runs them):
//! 1. `Ok(None)` of `stat` means *asked, and absent*; whatever keeps it from asking is an error.
//! 2. A version names one content: bytes read under a version are bytes of that version or [`Kind::Changed`].
//! 3. A `put` or `finish` that fails leaves the old content whole, or the new content whole, never a mix or a fragment.
//! 4. Success of a write is reported only after size, and hash or tag, of what the provider stored were compared.
//! 5. Nothing is ever removed that the call did not name: `remove` of a directory that is not empty is refused.
//! 6. Conditions are obeyed by the server where [`Capabilities`] says so, else by a look just before the call.

mod body;
mod call;
mod capability;
pub mod circuit;
mod contract;
mod feed;
pub mod folder;
mod gate;
pub mod layers;
pub mod limit;
mod looked;
pub mod measure;
pub mod memory;
mod meter;
pub mod names;
pub mod retry;
pub mod s3;
pub mod timeout;
pub mod webdav;

pub use body::{body, collect};
pub use call::Call;
pub use capability::{Capabilities, ChangeFeed, MetaSupport, NameRules, RenameDir, UploadSessions};
pub use circuit::{Circuit, CircuitPolicy};
pub use contract::{
    Body, ByteStream, Change, Changes, Condition, Listing, Part, Place, PutRequest, Remote, Session, Source,
};
pub use folder::Folder;
pub use gate::{Gate, LimitPolicy};
pub use layers::{Settings, Stack, stack, wrap};
pub use limit::Limit;
pub use measure::Measure;
pub use memory::Memory;
pub use meter::{CallCount, LastError, Link, Meter, Snapshot};
pub use retry::{Retry, RetryPolicy};
pub use timeout::{Timeout, TimeoutPolicy};

#[allow(unused_imports, reason = "named by the laws above")]
use crate::error::Kind;
