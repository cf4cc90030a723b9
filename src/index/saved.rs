//! An index in a file, and back.
//!
//! Saved are the rows that are not removed: their ids, vectors and, where there is a graph, codes and
//! links, each a column that other programs read. Loading maps the file, reads the ids and touches
//! no row: a chunk of rows is checked, and its codes and links are copied, when a search first comes
//! to it. Damaged codes are made again from the rows, and damaged links make the whole graph again;
//! damaged rows are an error of the call that touched them.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Index, State, repeated};
use crate::codes::Encoder;
use crate::corpus::{CHUNK, Chunk, Store, room};
use crate::error::{Error, Result};
use crate::file::{self, Column, Kind, Mapped, View, from_hex, to_hex};
use crate::graph::{self, DEGREE, Graph, NONE};
use crate::kernels::int8::record_bytes;
use crate::metric::Metric;
use crate::rows::{DType, Rows};
use crate::threads::{self, Hushed, Monitor, Run};

/// The columns that the index is made of.
pub(super) const OWN: [&str; 4] = ["ids", "vectors", "codes", "links"];

/// Columns that are no part of the index, and their metadata.
pub(super) type Others = (Vec<Column<'static>>, HashMap<String, String>);

/// Rows whose bytes are given to the writer together.
const PIECE: usize = 4096;

fn kind(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::F32,
        DType::F64 => Kind::F64,
        DType::F16 => Kind::F16,
        DType::BF16 => Kind::U16,
        DType::I8 => Kind::I8,
        DType::U8 => Kind::U8,
    }
}

fn dtype(kind: Kind) -> Option<DType> {
    match kind {
        Kind::F32 => Some(DType::F32),
        Kind::F64 => Some(DType::F64),
        Kind::F16 => Some(DType::F16),
        Kind::U16 => Some(DType::BF16),
        Kind::I8 => Some(DType::I8),
        Kind::U8 => Some(DType::U8),
        Kind::I64 | Kind::U32 => None,
    }
}

/// The columns of a file.
#[derive(Debug)]
struct Stored {
    mapped: Arc<Mapped>,
    path: PathBuf,
    rows: Rows<'static>,
    vectors: View,
    codes: Option<View>,
    links: Option<View>,
    damage: OnceLock<Error>,
    misses_links: AtomicBool,
}

impl Stored {
    /// The rows of a chunk.
    fn chunk(&self, chunk: usize) -> Range<usize> {
        chunk * CHUNK..((chunk + 1) * CHUNK).min(self.rows.len())
    }
}

impl Store for Stored {
    fn check_rows(&self, chunk: usize) {
        let rows = self.chunk(chunk);
        let bytes = self.vectors.len / self.rows.len().max(1);
        let checked = self
            .mapped
            .verify(&self.vectors, rows.start * bytes..rows.end * bytes)
            .and_then(|()| self.rows.slice(rows.start, rows.len()).check("chunk"))
            .map_err(|error| match error {
                Error::BadNumber { row, value, .. } => {
                    let row = rows.start + row;
                    Error::damaged(&self.path, Some("vectors"), format!("row {row} holds {value}"))
                }
                error => error,
            });
        if let Err(error) = checked {
            self.damage.get_or_init(|| error);
        }
    }

    fn records(&self, rows: Range<usize>) -> Option<Vec<u8>> {
        let view = self.codes?;
        let spare = Encoder::spare(rows.len(), view.width);
        self.mapped.bytes(&view, rows.start * view.width..rows.end * view.width, spare).ok()
    }

    fn links(&self, chunk: usize) -> Option<Vec<u32>> {
        let rows = self.chunk(chunk);
        let n = self.rows.len() as u32;
        let links = self.links.and_then(|view| {
            self.mapped.values::<u32>(&view, rows.start * DEGREE..rows.end * DEGREE).ok()
        });
        // A file may be crafted.
        let links = links.filter(|links| {
            let mut each = links.chunks_exact(DEGREE).zip(rows.start as u32..);
            each.all(|(links, row)| graph::can_be_links(links, row, n))
        });
        if links.is_none() {
            self.misses_links.store(true, Ordering::Relaxed);
        }
        links
    }

    fn misses_links(&self) -> bool {
        self.misses_links.load(Ordering::Relaxed)
    }

    fn damage(&self) -> Option<Error> {
        self.damage.get().cloned()
    }
}

/// A column of a saved index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileColumn {
    /// Its name.
    pub name: String,
    /// The type of a row's value: `int64`, or `float32[384]` for so many numbers.
    pub value: String,
    /// Bytes of all values.
    pub bytes: usize,
    /// What is wrong with them, if they were verified and something is.
    pub damage: Option<String>,
}

/// The columns of a file that [`Index::save`] wrote, each checked against its checksums where `verify`
/// is set. Without it, only what describes the file is read.
///
/// ```
/// use omendb::{Index, Metric, Rows, Run, file_columns};
///
/// let path = std::env::temp_dir().join("omendb-doc-columns.omen");
/// Index::new(Rows::from_vec(vec![0.0f32; 8], 2)?, Metric::Euclidean)?.save(&path)?;
/// let columns = file_columns(&path, true, Run::new())?;
/// assert_eq!((&*columns[1].name, &*columns[1].value, columns[1].bytes), ("vectors", "float32[2]", 32));
/// assert!(columns.iter().all(|column| column.damage.is_none()));
/// # Ok::<(), omendb::Error>(())
/// ```
///
/// # Errors
///
/// `File` if the system refuses, `Damaged` if what describes the file is not as it was written,
/// `Interrupted` if the monitor said so.
pub fn file_columns(path: impl AsRef<Path>, verify: bool, run: Run<'_>) -> Result<Vec<FileColumn>> {
    let (threads, monitor) = run.parts()?;
    let mapped = Mapped::open(path.as_ref())?;
    let columns = mapped.describe();
    let total = columns.iter().map(|(.., bytes)| *bytes as u64).sum();
    threads::run(threads, columns.len(), total, monitor, |i, worker| {
        let (name, value, bytes) = columns[i].clone();
        let step = |bytes: usize| worker.advance(bytes as u64);
        let checked = if verify { mapped.verify_column(&name, step) } else { Ok(()) };
        let damage = match checked {
            Ok(()) => None,
            Err(Error::Damaged { what, .. }) => Some(what),
            Err(error) => Some(error.to_string()),
        };
        FileColumn { name, value, bytes, damage }
    })
}

impl Index<'_> {
    /// Writes the index to a file, replacing one that is there; nothing is replaced on failure. Edits
    /// wait for each other and for this.
    ///
    /// The file is an Arrow IPC file with the columns `ids`, `vectors` (a fixed-size list; bfloat16
    /// as its bits in uint16) and, where there is a graph, `codes` and `links`.
    ///
    /// # Errors
    ///
    /// `File` if the system refuses, `Damaged` if the index was loaded and a row is not what was
    /// saved.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path, Run::new())
    }

    /// As [`Index::save`], with a monitor. Threads matter only where a damaged graph is built again.
    ///
    /// # Errors
    ///
    /// As [`Index::save`]; `InvalidParameter` if there are no threads, `Interrupted` if the monitor
    /// said so.
    pub fn save_with(&self, path: impl AsRef<Path>, run: Run<'_>) -> Result<()> {
        self.save_beside(path.as_ref(), |_| Ok(Others::default()), run)
    }

    /// Saves the index and the columns that `others` makes for the ids it is given. Where there are any,
    /// the ids in the file are 0 to n - 1.
    pub(super) fn save_beside(
        &self,
        path: &Path,
        others: impl FnOnce(&[i64]) -> Result<Others>,
        run: Run<'_>,
    ) -> Result<()> {
        let (threads, monitor) = run.parts()?;
        if let Some(graph) = &self.state().graph {
            graph.fetch_all();
        }
        // Links are changed where they lie.
        let edit = self.edit(monitor)?;
        self.mend_in(&edit, threads, &mut Hushed(monitor))?;
        let state = self.state();
        state.chunks.iter().for_each(|chunk| {
            chunk.rows();
        });
        state.sound()?;
        let live = state.live_rows();
        let mut ids: Vec<i64> = live.iter().map(|&row| state.id(row)).collect();
        let (others, their_metadata) = others(&ids)?;
        let mut next_id = state.next_id;
        if !others.is_empty() {
            ids = (0..live.len() as i64).collect();
            next_id = live.len() as i128;
        }
        let dtype = state.dtype.unwrap_or(DType::F32);
        // Links name rows by their places, which move up where rows are removed.
        let mut places = vec![NONE; state.rows()];
        live.iter().zip(0..).for_each(|(&row, place)| places[row] = place);
        let at = |row: u32| places.get(row as usize).copied().filter(|&place| place != NONE);
        let mut pieces = live.chunks(PIECE);
        let vectors = Column::new("vectors", kind(dtype), self.dim, |bytes| {
            for &row in pieces.next().unwrap_or_default() {
                state.chunks[row / CHUNK].rows().copy_bytes(row % CHUNK, bytes);
            }
        });
        let mut columns = vec![Column::of("ids", 0, &ids), vectors];
        let (mut coded, mut linked) = (live.chunks(PIECE), live.chunks(PIECE));
        let mut heads = String::new();
        if let Some((graph, encoder)) = state.graph.as_ref().zip(state.encoder.as_deref()) {
            heads = to_hex(graph.heads().iter().filter_map(|&h| at(h)).flat_map(u32::to_le_bytes));
            let width = record_bytes(encoder.steps());
            let state = &state;
            columns.push(Column::new("codes", Kind::U8, width, move |bytes| {
                for &row in coded.next().unwrap_or_default() {
                    let chunk = &state.chunks[row / CHUNK];
                    bytes.extend(&chunk.record(row % CHUNK, width, encoder)[..width]);
                }
            }));
            columns.push(Column::new("links", Kind::U32, DEGREE, move |bytes| {
                for &row in linked.next().unwrap_or_default() {
                    let there = graph.links(row as u32).filter_map(at);
                    let links = graph::pack(there, graph.copy(row as u32).and_then(at));
                    bytes.extend(links.iter().flat_map(|link| link.to_le_bytes()));
                }
            }));
        }
        let seed = state.seed.map(|seed| seed.to_string()).unwrap_or_default();
        let encoder = state.encoder.as_ref().map(|encoder| to_hex(encoder.to_bytes()));
        let encoder = encoder.unwrap_or_default();
        let lift = state.graph.as_ref().map_or(0.0, |graph| graph.lift).to_bits().to_string();
        columns.extend(others);
        let own = [
            ("omendb.metric", self.metric.name()),
            ("omendb.dim", &self.dim.to_string()),
            ("omendb.typed", if state.dtype.is_some() { "yes" } else { "no" }),
            ("omendb.next_id", &next_id.to_string()),
            ("omendb.seed", &seed),
            ("omendb.effort", &state.effort.to_string()),
            ("omendb.learned", &state.learned.to_string()),
            ("omendb.encoder", &encoder),
            ("omendb.heads", &heads),
            ("omendb.lift", &lift),
        ];
        let theirs = their_metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let metadata: Vec<_> = own.into_iter().chain(theirs).collect();
        file::write(path, live.len(), columns, &metadata, monitor)
    }

    /// Loads a file that [`Index::save`] wrote, which stays mapped: vectors are used where they lie.
    ///
    /// Rows, codes and links are checked against their checksums when they are first touched.
    /// Damaged links are built again. Other columns, which Python's frames leave in a file, are not
    /// read; the ids of such a file are 0 to n - 1.
    ///
    /// # Errors
    ///
    /// `File` if the system refuses, `Damaged` if the file is not what was written (a search may
    /// find so later).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::load_with(path, false, Run::new())
    }

    /// As [`Index::load`], checking all at once where `verify` is set.
    ///
    /// # Errors
    ///
    /// As [`Index::load`]; `InvalidParameter` if there are no threads, `Interrupted` if the monitor
    /// said so.
    pub fn load_with(path: impl AsRef<Path>, verify: bool, run: Run<'_>) -> Result<Self> {
        let (threads, monitor) = run.parts()?;
        let path = path.as_ref();
        let index =
            Self::load_mapped(&Arc::new(Mapped::open(path)?), path, verify, threads, monitor)?;
        if monitor.finish() { Ok(index) } else { Err(Error::Interrupted) }
    }

    /// The index in a file; the monitor is not asked to finish.
    pub(super) fn load_mapped(
        mapped: &Arc<Mapped>,
        path: &Path,
        verify: bool,
        threads: usize,
        monitor: &mut dyn Monitor,
    ) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(path, None, what.to_owned());
        let text = |key: &str| {
            mapped.metadata(key).ok_or_else(|| damaged(&format!("it has no entry {key}")))
        };
        let bad = |key: &str| damaged(&format!("its entry {key} makes no sense"));
        let number = |key: &str| text(key)?.parse::<usize>().map_err(|_| bad(key));
        let metric: Metric = text("omendb.metric")?.parse().map_err(|_| bad("omendb.metric"))?;
        let dim = number("omendb.dim")?;
        let typed = match text("omendb.typed")? {
            "yes" => true,
            "no" if mapped.rows() == 0 => false,
            _ => return Err(bad("omendb.typed")),
        };
        let next_id: i128 = text("omendb.next_id")?.parse().map_err(|_| bad("omendb.next_id"))?;
        let seed = match text("omendb.seed")? {
            "" => None,
            seed => Some(seed.parse().map_err(|_| bad("omendb.seed"))?),
        };
        let (effort, learned) = (number("omendb.effort")?, number("omendb.learned")?);
        let lift: u32 = text("omendb.lift")?.parse().map_err(|_| bad("omendb.lift"))?;
        let n = mapped.rows();
        if dim == 0 || effort == 0 || n > u32::MAX as usize || !(0..=1 << 63).contains(&next_id) {
            return Err(damaged("a number of it is out of range"));
        }
        let vectors =
            mapped.column("vectors").ok_or_else(|| damaged("it has no column vectors"))?;
        let dtype = dtype(vectors.kind).ok_or_else(|| damaged("its vectors are no vectors"))?;
        let vectors = mapped.expect("vectors", vectors.kind, dim)?;
        let ids = mapped.expect("ids", Kind::I64, 0)?;
        let (mut all_ids, mut ascending) = (Vec::new(), true);
        let mut last = None;
        for start in (0..n).step_by(CHUNK) {
            let ids: Vec<i64> = mapped.values(&ids, start..n.min(start + CHUNK))?;
            if ids.iter().any(|&id| i128::from(id) >= next_id) {
                return Err(damaged("an id is beyond the next one"));
            }
            ascending &= ids.is_sorted_by(|a, b| a < b) && last.is_none_or(|last| last < ids[0]);
            last = ids.last().copied();
            all_ids.push(Arc::new(ids));
        }
        if !ascending {
            let ids: Vec<i64> = all_ids.iter().flat_map(|ids| ids.iter().copied()).collect();
            repeated(&ids).map_err(|error| damaged(&error.to_string()))?;
        }
        let encoder = match text("omendb.encoder")? {
            "" => None,
            hex => {
                let bytes = from_hex(hex).ok_or_else(|| bad("omendb.encoder"))?;
                let encoder = Encoder::from_bytes(metric, dim, &bytes);
                Some(Arc::new(encoder.ok_or_else(|| bad("omendb.encoder"))?))
            }
        };
        let owner: Arc<Mapped> = Arc::clone(mapped);
        // SAFETY: the column has `n * dim` numbers of this type (checked by `expect`), which stay
        // readable as long as the map lives.
        #[allow(unsafe_code)]
        let rows =
            unsafe { Rows::from_raw(mapped.pointer(&vectors), n, dim, None, dtype, Some(owner)) };
        let width = encoder.as_ref().map_or(0, |encoder| record_bytes(encoder.steps()));
        let codes = mapped.expect("codes", Kind::U8, width).ok();
        let region = encoder.as_ref().filter(|_| codes.is_some());
        let region = region.and_then(|encoder| room(n.div_ceil(CHUNK), encoder));
        let store: Arc<dyn Store> = Arc::new(Stored {
            path: path.to_path_buf(),
            rows: rows.clone(),
            vectors,
            codes,
            links: mapped.expect("links", Kind::U32, DEGREE).ok(),
            damage: OnceLock::new(),
            misses_links: AtomicBool::new(false),
            mapped: Arc::clone(mapped),
        });
        let index = Self::empty(dim, metric)?;
        let chunk = |start: usize| {
            let rows = rows.slice(start, CHUNK.min(n - start));
            let (store, region) = (Arc::clone(&store), region.clone());
            Arc::new(Chunk::stored(rows, store, start / CHUNK, region))
        };
        let mut state = State {
            dtype: typed.then_some(dtype),
            chunks: (0..n).step_by(CHUNK).map(chunk).collect(),
            store: Some(Arc::clone(&store)),
            ids: all_ids,
            ascending,
            encoder,
            seed,
            effort,
            learned,
            updated: 0,
            next_id,
            ..(*index.state()).clone()
        };
        if let Some(seed) = seed.filter(|_| n > 0) {
            let heads = from_hex(text("omendb.heads")?).unwrap_or_default();
            let heads: Vec<u32> =
                heads.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
            if !heads.is_empty() {
                let corpus = index.corpus(&state, None);
                let graph = Graph::stored(corpus, &store, heads, seed, f32::from_bits(lift));
                state.graph = Some(Arc::new(graph.ok_or_else(|| bad("omendb.heads"))?));
            }
        }
        if verify {
            mapped.check(&OWN)?;
            let chunks = state.chunks.len();
            threads::run(threads, chunks, n as u64, &mut Hushed(monitor), |chunk, worker| {
                let first = chunk * CHUNK;
                state.chunks[chunk].rows();
                store.records(first..(first + CHUNK).min(n));
                worker.advance(CHUNK as u64)
            })?;
            state.sound()?;
            state.graph.iter().for_each(|graph| graph.fetch_all());
        }
        index.publish(state, n, &[])?;
        let edit = index.edit(monitor)?;
        index.mend_in(&edit, threads, &mut Hushed(monitor))?;
        drop(edit);
        Ok(index)
    }
}
