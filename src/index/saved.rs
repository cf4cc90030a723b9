//! An index in a file, and back.
//!
//! Saved are the rows that are not removed: their ids, vectors and links, each a column that other
//! programs read. Codes are made again when a file is loaded, which takes a fraction of the time
//! that reading does; links that are damaged or impossible are built again.

use std::path::Path;
use std::sync::Arc;

use super::{Index, State, check_threads};
use crate::error::{Error, Result};
use crate::exact::CHUNK;
use crate::file::{self, Column, Kind, Mapped, from_hex, to_hex};
use crate::graph::{DEGREE, Graph, NONE};
use crate::metric::Metric;
use crate::rows::{DType, Rows};
use crate::threads::{Hushed, Monitor, run};

/// Rows whose bytes are given to the writer together.
const PIECE: usize = 4096;
/// Bytes that are checked by one thread before it takes more.
const CHECKED: usize = 1 << 22;

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

impl Index {
    /// Writes the index to a file, replacing one that is there; nothing is replaced on failure.
    ///
    /// The file is an Arrow IPC file with the columns `ids`, `vectors` (a fixed-size list; bfloat16
    /// as its bits in uint16) and, where there is a graph, `links`.
    ///
    /// # Errors
    ///
    /// `File` if the system refuses, `Interrupted` if the monitor said so.
    pub fn save(&self, path: &Path, monitor: &mut dyn Monitor) -> Result<()> {
        let state = self.state();
        let live = state.live_rows();
        let ids: Vec<i64> = live.iter().map(|&row| state.id(row)).collect();
        let dtype = state.dtype.unwrap_or(DType::F32);
        // Links name rows by their places, which move up where rows are removed.
        let mut places = vec![NONE; state.rows()];
        live.iter().zip(0..).for_each(|(&row, place)| places[row] = place);
        let at = |row: u32| places.get(row as usize).copied().filter(|&place| place != NONE);
        let mut pieces = live.chunks(PIECE);
        let vectors = Column::new("vectors", kind(dtype), self.dim, |bytes| {
            for &row in pieces.next().unwrap_or_default() {
                state.chunks[row / CHUNK].rows.copy_bytes(row % CHUNK, bytes);
            }
        });
        let mut columns = vec![Column::of("ids", 0, &ids), vectors];
        let mut linked = live.chunks(PIECE);
        let mut heads = String::new();
        if let Some(graph) = &state.graph {
            heads = to_hex(graph.heads().iter().filter_map(|&h| at(h)).flat_map(u32::to_le_bytes));
            columns.push(Column::new("links", Kind::U32, DEGREE, move |bytes| {
                for &row in linked.next().unwrap_or_default() {
                    let mut links = [NONE; DEGREE];
                    let there = graph.links(row as u32).filter_map(at);
                    links.iter_mut().zip(there).for_each(|(slot, link)| *slot = link);
                    bytes.extend(links.iter().flat_map(|link| link.to_le_bytes()));
                }
            }));
        }
        let seed = state.seed.map(|seed| seed.to_string()).unwrap_or_default();
        let lift = state.graph.as_ref().map_or(0.0, |graph| graph.lift).to_bits().to_string();
        let metadata = [
            ("omendb.metric", self.metric.name()),
            ("omendb.dim", &self.dim.to_string()),
            ("omendb.typed", if state.dtype.is_some() { "yes" } else { "no" }),
            ("omendb.next_id", &state.next_id.to_string()),
            ("omendb.seed", &seed),
            ("omendb.effort", &state.effort.to_string()),
            ("omendb.heads", &heads),
            ("omendb.lift", &lift),
        ];
        file::write(path, live.len(), columns, &metadata, monitor)
    }

    /// Loads a file that [`Index::save`] wrote. Vectors are used where the file is mapped.
    ///
    /// All of it is checked against its checksums. Damaged links are built again.
    ///
    /// # Errors
    ///
    /// `File` if the system refuses, `Damaged` if the file is not what was written,
    /// `InvalidParameter` if `threads` is 0,
    /// `Interrupted` if the monitor said so.
    pub fn load(path: &Path, threads: Option<usize>, monitor: &mut dyn Monitor) -> Result<Self> {
        let threads = check_threads(threads)?;
        let mapped = Arc::new(Mapped::open(path)?);
        let damaged = |what: &str| Error::damaged(path, None, what.to_owned());
        let text = |key: &str| {
            mapped.metadata(key).ok_or_else(|| damaged(&format!("it has no entry {key}")))
        };
        let bad = |key: &str| damaged(&format!("its entry {key} makes no sense"));
        let metric: Metric = text("omendb.metric")?.parse().map_err(|_| bad("omendb.metric"))?;
        let dim: usize = text("omendb.dim")?.parse().map_err(|_| bad("omendb.dim"))?;
        let typed = text("omendb.typed")? == "yes";
        let next_id: i128 = text("omendb.next_id")?.parse().map_err(|_| bad("omendb.next_id"))?;
        let seed = match text("omendb.seed")? {
            "" => None,
            seed => Some(seed.parse().map_err(|_| bad("omendb.seed"))?),
        };
        let effort: usize = text("omendb.effort")?.parse().map_err(|_| bad("omendb.effort"))?;
        let lift: u32 = text("omendb.lift")?.parse().map_err(|_| bad("omendb.lift"))?;
        let n = mapped.rows();
        if dim == 0 || effort == 0 || n > u32::MAX as usize || !(0..=1 << 63).contains(&next_id) {
            return Err(damaged("a number of it is out of range"));
        }
        let column = mapped.column("vectors").ok_or_else(|| damaged("it has no column vectors"))?;
        let dtype = dtype(column.kind).ok_or_else(|| damaged("its vectors are no vectors"))?;
        let column = mapped.expect("vectors", column.kind, dim)?;
        let ids_column = mapped.expect("ids", Kind::I64, 0)?;
        let ids: Vec<i64> = mapped.values(&ids_column, 0..n)?;
        if ids.iter().any(|&id| i128::from(id) >= next_id) {
            return Err(damaged("an id is beyond the next one"));
        }
        // Reading is all there is to it: as many threads as there are.
        let tasks = column.len.div_ceil(CHECKED);
        let checked =
            run(threads, tasks, column.len as u64, &mut Hushed(monitor), |task, worker| {
                worker.advance(CHECKED as u64);
                let bytes = task * CHECKED..((task + 1) * CHECKED).min(column.len);
                mapped.verify(&column, bytes)
            })?;
        checked.into_iter().collect::<Result<()>>()?;
        let owner: Arc<Mapped> = Arc::clone(&mapped);
        // SAFETY: the column has `n * dim` numbers of this type (checked by `expect`), which stay
        // readable as long as the map lives.
        #[allow(unsafe_code)]
        let rows = unsafe { Rows::borrow(mapped.pointer(&column), n, dim, dtype, owner) };
        let index = Self::new(&rows, metric, Some(&ids), Some(threads), &mut Hushed(monitor))
            .map_err(|error| match error {
                Error::Interrupted => error,
                error => damaged(&error.to_string()),
            })?;
        let state = index.state();
        let dtype = if typed { state.dtype } else { None };
        let mut next = State { dtype, seed, effort, next_id, ..(*state).clone() };
        if seed.is_some() && n > 0 {
            let heads = from_hex(text("omendb.heads")?).unwrap_or_default();
            let heads: Vec<u32> =
                heads.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
            let links = mapped
                .expect("links", Kind::U32, DEGREE)
                .and_then(|column| mapped.values::<u32>(&column, 0..n * DEGREE));
            next.graph = match links {
                Ok(links) => {
                    let corpus = index.corpus(&next, None);
                    let lift = f32::from_bits(lift);
                    Graph::restored(corpus, &links, heads, seed.unwrap_or(0), lift).map(Arc::new)
                }
                Err(_) => None,
            };
            if next.graph.is_none() {
                next.graph = index.new_graph(&next, threads, monitor)?;
            }
        }
        index.publish(next, n, &[]);
        if !monitor.finish() {
            return Err(Error::Interrupted);
        }
        Ok(index)
    }
}
