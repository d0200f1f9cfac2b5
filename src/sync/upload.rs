//! Sending content: whole, or in a session that survives a crash. Confirmed only when the provider's word and ours are equal.
//!
//! Order: bytes are in the journal → the remote acknowledges, size and hash compared (the remote's duty, law 4) → the row
//! agrees → the journal file becomes the cache's. A crash between two steps leaves more than is needed, never less.

use super::Shared;
use super::attempts::content_of;
use super::engine::LARGE;
use super::goal::Goal;
use super::operate::Progress;
use crate::error::{Error, Kind, Result};
use crate::fetch::{Need, Sink, Target};
use crate::journal::{Base, Confirmed, Snapshot};
use crate::model::{Entry, Ino, Meta};
use crate::remote::{Body, Condition, Part, Place, PutRequest, Session, Source};
use crate::store::{Content, Node, PartRow, SessionRow, View, Which};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Bytes compared at once when two contents are compared.
const COMPARE: usize = 1 << 20;

/// Parts of one file that are sent at once.
const PARTS_AT_ONCE: usize = 4;

/// Content that is all in memory.
pub(super) struct Literal(pub(super) Bytes);

impl Source for Literal {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

/// One generation of a journal file, and who counts its progress.
struct Journaled {
    snapshot: Snapshot,
    shared: Arc<Shared>,
    ino: Ino,
    /// Where what is not here is read: of a file that has no room on this disk as a whole.
    base: Option<Target>,
}

impl Journaled {
    /// Reads what the disk has no room for from the base. Called by remotes, on threads of the runtime.
    fn patched(&self, base: &Target, range: Range<u64>) -> Result<Bytes> {
        let fetcher = self.shared.parts.fetcher.clone();
        let runtime = tokio::runtime::Handle::current();
        let here = || self.snapshot.read(range.clone()).map(|bytes| bytes.to_vec());
        let bytes = tokio::task::block_in_place(|| runtime.block_on(fetcher.patched(base, range.clone(), here)))?;
        // A writer may have come in between.
        self.snapshot.read(range.start..range.start)?;
        Ok(bytes)
    }
}

impl Source for Journaled {
    fn size(&self) -> u64 {
        self.snapshot.size
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let bytes = match &self.base {
            Some(base) if base.is_missing(&range) => self.patched(base, range)?,
            _ => self.snapshot.read(range)?,
        };
        self.shared.moving.advance(self.ino, bytes.len() as u64);
        Ok(bytes)
    }
}

impl Shared {
    /// Sends what was written here over the version that both sides agreed on.
    pub(super) async fn send(self: &Arc<Self>, ino: Ino, large: &Arc<Semaphore>) -> Result<Progress> {
        let (node, goal, view) = self.store().read(|rows| {
            let node = rows.node(ino)?;
            let goal = self.goal(rows, &node)?;
            Ok((node, goal, rows.view(ino, 0, Which::Remote)?))
        })?;
        let Some(view) = view else { return Ok(Progress::Went) };
        if self.guard.is_busy(&goal.place.path) {
            return Ok(Progress::Busy);
        }
        let condition = view.version.clone().map_or(Condition::Any, Condition::Is);
        let goal = Goal { place: Place { id: view.id.clone(), ..goal.place }, ..goal };
        self.upload(&node, &goal, condition, large).await
    }

    /// Sends the content of a dirty file to its goal.
    pub(super) async fn upload(
        self: &Arc<Self>,
        node: &Node,
        goal: &Goal,
        condition: Condition,
        large: &Arc<Semaphore>,
    ) -> Result<Progress> {
        let ino = node.ino;
        if let Some(first) = self.last_attempt(ino).await? {
            return Ok(first);
        }
        let (body, generation): (Body, Option<u64>) = match self.parts.journal.get(ino) {
            Some(staged) => {
                if staged.holds_nothing() && self.place(ino).is_err() {
                    return self.let_go(ino, &staged);
                }
                if !staged.is_whole() {
                    self.fill(ino).await?;
                }
                let snapshot = staged.snapshot()?;
                let generation = snapshot.generation;
                let base = match staged.is_whole() {
                    true => None,
                    // What is missing and in no version must not be sent as zeros.
                    false => Some(self.base(ino)?.ok_or_else(|| gone_bytes("some of its bytes are in no version"))?),
                };
                (Arc::new(Journaled { snapshot, shared: self.clone(), ino, base }), Some(generation))
            }
            None if node.size == 0 => (Arc::new(Literal(Bytes::new())), None),
            None => {
                return Err(gone_bytes("its bytes are gone from the journal"));
            }
        };
        let size = body.size();
        let _large = match size > LARGE {
            true => Some(large.acquire().await.map_err(|_| Error::new(Kind::Unavailable, "shutting down"))?),
            false => None,
        };
        let mtime_ns = self.parts.journal.get(ino).map_or(node.times.mtime_ns, |s| s.size_and_mtime().1);
        let meta = Meta { mtime_ns: Some(mtime_ns), ..node.meta() };
        let doing = format!("upload {}", goal.place.path);
        self.moving.begin(ino, goal.place.path.to_string(), size);
        let Some(call) = self.guard.call(vec![goal.place.path.clone()]) else {
            self.moving.end(ino);
            return Ok(Progress::Busy);
        };
        if let Some(ended) = self.attempt(node, goal, &condition, &content_of(goal, &body)?)? {
            self.moving.end(ino);
            return Ok(ended);
        }
        let sent = self.transfer(ino, goal, body.clone(), generation, &meta, &condition).await;
        self.moving.end(ino);
        let entry = match sent {
            Ok(entry) => entry,
            Err(e) if matches!(e.kind, Kind::Precondition | Kind::Exists) => {
                drop(call);
                return self.lost_race(ino, goal, &body, &meta, generation, e.context(doing)).await;
            }
            Err(e) if e.kind == Kind::NotFound => {
                drop(call);
                // Its directory, or the file itself, is gone there: look where.
                let parent = goal.place.path.split().map(|(parent, _)| parent).filter(|p| !p.is_root());
                if let Some(parent) = parent {
                    self.look(&Place::at(parent)).await?;
                }
                self.look(&goal.place).await?;
                return Err(Error::new(Kind::Precondition, e.to_string()).context(doing));
            }
            Err(e) => return Err(e.context(doing)),
        };
        self.confirm(ino, goal, &entry, &meta, generation)
    }

    async fn transfer(
        self: &Arc<Self>,
        ino: Ino,
        goal: &Goal,
        body: Body,
        generation: Option<u64>,
        meta: &Meta,
        condition: &Condition,
    ) -> Result<Entry> {
        let capabilities = self.remote().capabilities();
        match (capabilities.sessions, generation) {
            (Some(sessions), Some(generation)) if body.size() >= capabilities.session_from_bytes => {
                let parts = SessionUpload { shared: self, ino, goal, body, generation, meta, condition };
                parts.run(sessions).await
            }
            _ if body.size() > capabilities.put_bytes_max => Err(Error::new(
                Kind::TooLarge,
                format!("{} bytes are more than this remote takes ({})", body.size(), capabilities.put_bytes_max),
            )),
            _ => {
                let request = PutRequest { body, meta: meta.clone(), condition: condition.clone() };
                self.remote().put(&goal.place, request).await
            }
        }
    }

    /// The remote has our bytes: the row agrees, and the journal file becomes the cache's.
    fn confirm(&self, ino: Ino, goal: &Goal, entry: &Entry, meta: &Meta, generation: Option<u64>) -> Result<Progress> {
        let version = entry.version.clone().ok_or_else(|| Error::new(Kind::Corrupt, "the remote gave no version"))?;
        let agree = |clean: &dyn Fn() -> Option<(u64, i64)>| {
            self.store().write(|tx| {
                tx.remove_session(ino)?;
                if tx.find_node(ino)?.is_none() {
                    return Ok(());
                }
                self.settle(tx, ino, goal, entry, meta)?;
                if let Some((size, mtime_ns)) = clean() {
                    let mut node = tx.node(ino)?;
                    node.content = Content::Version(version.clone());
                    node.size = size;
                    node.times.mtime_ns = mtime_ns;
                    tx.set_node(&node)?;
                }
                Ok(())
            })
        };
        let Some(generation) = generation else {
            // An empty file that was never staged. If it was staged meanwhile, what was written follows; asked inside the
            // transaction, so that whoever stages it later finds the row as it is then (`Drive::stage`).
            agree(&|| self.parts.journal.get(ino).is_none().then_some((0, meta.mtime_ns.unwrap_or_default())))?;
            return Ok(Progress::Went);
        };
        let confirmed = self.parts.journal.finish(
            ino,
            Some(generation),
            |size, mtime_ns| agree(&|| Some((size, mtime_ns))),
            |leaving| {
                if !leaving.whole {
                    return false;
                }
                let present = std::iter::once(0..leaving.size).collect();
                let file = leaving.file.clone();
                match self.parts.cache.adopt(leaving.path, ino, &version, leaving.size, file, present, leaving.charged)
                {
                    Ok(_) => true,
                    Err(e) => {
                        tracing::warn!("inode {ino} is saved, but not kept in the cache: {e}");
                        false
                    }
                }
            },
        )?;
        match confirmed {
            Confirmed::Done => {
                self.forget_blocks(ino, Some(&version));
                self.store().opens().became(ino, &version);
                self.rates.saved(self.parts.clock.wall_ns());
            }
            Confirmed::Newer => {
                // The new base first: should a crash come between the two, what the journal has no room for is still read from a
                // version that the remote has.
                if let Some(staged) = self.parts.journal.get(ino) {
                    staged.rebase(Some(Base { version: version.0.clone(), size: entry.size }))?;
                }
                agree(&|| None)?;
            }
            // Deleted here while it was sent: the planner deletes it there.
            Confirmed::Gone => agree(&|| None)?,
        }
        Ok(Progress::Went)
    }

    /// A condition did not hold. First question: does the server hold what we just sent? A lost answer looks like this.
    async fn lost_race(
        self: &Arc<Self>,
        ino: Ino,
        goal: &Goal,
        body: &Body,
        meta: &Meta,
        generation: Option<u64>,
        error: Error,
    ) -> Result<Progress> {
        let there = self.remote().stat(&goal.place).await?;
        if let Some(entry) = &there
            && entry.size == body.size()
            && let Some(version) = &entry.version
            && self.equal(&goal.place, version, body).await?
        {
            return self.confirm(ino, goal, entry, meta, generation);
        }
        match self.look(&goal.place).await? {
            // What the remote has now is noted; the planner keeps both.
            Some(_) => Ok(Progress::Went),
            None => Err(error),
        }
    }

    async fn equal(&self, place: &Place, version: &crate::model::Version, body: &Body) -> Result<bool> {
        use futures_util::StreamExt;
        let size = body.size();
        if size == 0 {
            return Ok(true);
        }
        let mut stream = self.remote().read(place, version, 0..size).await?;
        let mut at = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            for part in chunk.chunks(COMPARE) {
                if body.read(at..at + part.len() as u64)? != part {
                    return Ok(false);
                }
                at += part.len() as u64;
            }
        }
        Ok(at == size)
    }

    /// Whether the bytes here are those of the remote's view: then the generation that was compared, if they are in the journal.
    pub(super) async fn same_bytes(self: &Arc<Self>, ino: Ino, view: &View) -> Result<Option<Option<u64>>> {
        let Some(version) = &view.version else { return Ok(None) };
        let node = self.store().read(|rows| rows.node(ino))?;
        let (body, generation): (Body, Option<u64>) = match self.parts.journal.get(ino) {
            Some(staged) if staged.is_whole() => {
                let snapshot = staged.snapshot()?;
                let generation = snapshot.generation;
                (Arc::new(Journaled { snapshot, shared: self.clone(), ino, base: None }), Some(generation))
            }
            Some(_) => return Ok(None),
            None if node.content == Content::Dirty => (Arc::new(Literal(Bytes::new())), None),
            None => return Ok(None),
        };
        if body.size() != view.size {
            return Ok(None);
        }
        let place = self.place(ino)?;
        match self.equal(&place, version, &body).await {
            Err(e) if e.kind == Kind::Changed => Ok(None),
            other => other.map(|equal| equal.then_some(generation)),
        }
    }

    /// Both sides have the same bytes: nothing was in conflict. `generation` is the one that was compared: what is written since
    /// stays.
    pub(super) fn converge(&self, ino: Ino, view: &View, generation: Option<u64>) -> Result<Progress> {
        let (goal, node) = self.store().read(|rows| {
            let node = rows.node(ino)?;
            let place = super::place_of(rows, ino)?;
            Ok((Goal { parent: view.parent, name: view.shown.clone(), raw: view.name.clone(), place }, node))
        })?;
        let entry = super::conflict::entry_of(view);
        self.confirm(ino, &goal, &entry, &node.meta(), generation)
    }

    /// The version that what is missing of a staged file is fetched from.
    fn base(&self, ino: Ino) -> Result<Option<Target>> {
        let Some(staged) = self.parts.journal.get(ino) else { return Ok(None) };
        let Some(base) = staged.header().base else { return Ok(None) };
        let place = self.place(ino).map_err(|_| {
            let why = "the remote changed it before the rest of the old version was here; what was written waits in the journal";
            Error::new(Kind::Corrupt, why)
        })?;
        Ok(Some(Target { ino, version: base.version(), size: base.size, place, sink: Sink::Journal(staged) }))
    }

    /// Fetches what a staged file does not have yet from its base version, as far as there is room for it.
    pub(super) async fn fill(&self, ino: Ino) -> Result<()> {
        if let Some(target) = self.base(ino)? {
            self.parts.fetcher.bring_while_room(&target, Need::Now).await?;
        }
        Ok(())
    }
}

fn gone_bytes(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("{what}; nothing was sent, and the remote keeps what it had"))
}

/// One upload in parts.
struct SessionUpload<'a> {
    shared: &'a Arc<Shared>,
    ino: Ino,
    goal: &'a Goal,
    body: Body,
    generation: u64,
    meta: &'a Meta,
    condition: &'a Condition,
}

impl SessionUpload<'_> {
    async fn run(&self, limits: crate::remote::UploadSessions) -> Result<Entry> {
        let mut row = match self.resume().await? {
            Some(row) => row,
            None => self.begin(&limits).await?,
        };
        let session = Session(row.session.clone());
        let count = row.size.div_ceil(row.part_bytes).max(1) as u32;
        let mut todo: Vec<u32> = (1..=count).filter(|n| !row.parts.iter().any(|p| p.number == *n)).collect();
        todo.reverse();
        for done in &row.parts {
            self.shared.moving.advance(self.ino, done.size);
        }
        let at_once = if limits.parallel { PARTS_AT_ONCE } else { 1 };
        while !todo.is_empty() {
            let batch: Vec<u32> = (0..at_once).filter_map(|_| todo.pop()).collect();
            let sent =
                futures_util::future::join_all(batch.into_iter().map(|number| self.part(&session, &row, number))).await;
            let mut failed = None;
            for part in sent {
                match part {
                    Ok(part) => row.parts.push(PartRow { number: part.number, size: part.size, tag: part.tag }),
                    Err(e) => failed = Some(e),
                }
            }
            self.shared.store().write(|tx| tx.set_session(&row))?;
            if let Some(e) = failed {
                return Err(self.drop_if_over(&session, e).await);
            }
        }
        row.parts.sort_by_key(|p| p.number);
        let parts: Vec<Part> =
            row.parts.iter().map(|p| Part { number: p.number, size: p.size, tag: p.tag.clone() }).collect();
        // A last look: a writer that came after the last part was read must not be confirmed away.
        self.body.read(0..0)?;
        match self.shared.remote().finish(&session, &parts, self.meta, self.condition).await {
            Ok(entry) => Ok(entry),
            Err(e) => Err(self.drop_if_over(&session, e).await),
        }
    }

    async fn part(&self, session: &Session, row: &SessionRow, number: u32) -> Result<Part> {
        let start = u64::from(number - 1) * row.part_bytes;
        let range = start..(start + row.part_bytes).min(row.size);
        self.shared.remote().part(session, number, self.body.clone(), range).await
    }

    /// A session that can be of no more use is given up, so that the next try begins a new one.
    async fn drop_if_over(&self, session: &Session, e: Error) -> Error {
        if matches!(e.kind, Kind::NotFound | Kind::Changed | Kind::Precondition) {
            let _ = self.shared.remote().abort(session).await;
            if let Err(e) = self.shared.store().write(|tx| tx.remove_session(self.ino)) {
                return e;
            }
        }
        if e.kind == Kind::NotFound { Error::new(Kind::Unavailable, e.to_string()) } else { e }
    }

    async fn resume(&self) -> Result<Option<SessionRow>> {
        let Some(mut row) = self.shared.store().read(|rows| rows.session(self.ino))? else { return Ok(None) };
        let session = Session(row.session.clone());
        let same = row.generation == self.generation
            && row.size == self.body.size()
            && row.place == self.goal.place.path.as_str();
        if same {
            match self.shared.remote().parts(&session).await {
                Ok(parts) => {
                    row.parts =
                        parts.into_iter().map(|p| PartRow { number: p.number, size: p.size, tag: p.tag }).collect();
                    return Ok(Some(row));
                }
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => return Err(e),
            }
        } else {
            let _ = self.shared.remote().abort(&session).await;
        }
        self.shared.store().write(|tx| tx.remove_session(self.ino))?;
        Ok(None)
    }

    async fn begin(&self, limits: &crate::remote::UploadSessions) -> Result<SessionRow> {
        let size = self.body.size();
        let least = size.div_ceil(u64::from(limits.parts_max.max(1)));
        let part_bytes =
            (8 << 20_u64).max(limits.part_bytes_min).max(least.next_multiple_of(1 << 20)).min(limits.part_bytes_max);
        let session = self.shared.remote().begin(&self.goal.place, size, self.meta, self.condition).await?;
        let row = SessionRow {
            ino: self.ino,
            session: session.0,
            generation: self.generation,
            size,
            part_bytes,
            place: self.goal.place.path.as_str().to_owned(),
            parts: Vec::new(),
        };
        self.shared.store().write(|tx| tx.set_session(&row))?;
        Ok(row)
    }
}
