//! Writing a file: all of it, or nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arrow_schema::Schema;
use tempfile::NamedTempFile;

use super::{ALIGN, BLOCK, Kind, Shape, Value, format};
use crate::error::{Error, Result};
use crate::threads::{Monitor, Worker, run};

/// Small pieces are gathered to this many bytes before they are written.
const GATHER: usize = 1 << 20;
/// Bytes after which the disk is waited for: between two, nobody hears the monitor.
const SYNC: usize = 8 << 20;

/// Appends the next bytes of a buffer, of any number but 0.
pub(super) type Source<'a> = Box<dyn FnMut(&mut Vec<u8>) + Send + 'a>;

/// A column to be written, and where its bytes come from.
pub(crate) struct Column<'a> {
    pub(super) shape: Shape,
    /// One for each of its buffers.
    pub(super) sources: Vec<Source<'a>>,
    /// Of a column of keys: how many values its dictionary has, and these.
    pub(super) dictionary: Option<(usize, Box<Column<'a>>)>,
}

impl<'a> Column<'a> {
    /// A column of numbers whose bytes come in pieces, so that no second copy of all is ever held.
    ///
    /// `source` appends the next piece, little-endian, to an empty vector, and is called until
    /// the rows are complete. Each piece is copied once, and what was copied is both checksummed
    /// and written: memory that others write to meanwhile gives a file that is sound, whatever
    /// numbers it then holds.
    pub(crate) fn new(
        name: &str,
        kind: Kind,
        width: usize,
        source: impl FnMut(&mut Vec<u8>) + Send + 'a,
    ) -> Self {
        let shape = Shape::of_numbers(name, kind, width);
        Self { shape, sources: vec![Box::new(source)], dictionary: None }
    }

    /// A column of these values.
    pub(crate) fn of<T: Value>(name: &str, width: usize, values: &'a [T]) -> Self {
        let mut pieces = values.chunks(BLOCK);
        Self::new(name, T::KIND, width, move |bytes| {
            T::put(pieces.next().unwrap_or_default(), bytes);
        })
    }
}

/// Writes columns of `rows` rows and `metadata` to `path`, replacing a file that is there.
///
/// The new file has that one's permissions, or those that the process gives to new files. A path
/// that is a link stays one: the file it leads to is replaced.
///
/// # Errors
///
/// `File` if the system refuses, `Interrupted` if the monitor said so, `InvalidParameter` if a
/// file cannot hold so much. A file that was there is untouched then, with one exception: if the
/// error says that the folder was not synced, the new file is in place, but may not outlive a
/// power failure.
///
/// # Panics
///
/// If there is no column, if two have one name, or if a source gives more or fewer bytes than its rows have.
pub(crate) fn write(
    path: &Path,
    rows: usize,
    columns: Vec<Column<'_>>,
    metadata: &[(&str, &str)],
    monitor: &mut dyn Monitor,
) -> Result<()> {
    assert!(!columns.is_empty(), "a file has a column");
    let target = Target::of(path)?;
    let (mut tables, mut sources) = (Vec::new(), Vec::new());
    let (mut shapes, mut last) = (Vec::<Shape>::new(), Vec::new());
    for column in columns {
        let name = column.shape.field.name();
        assert!(shapes.iter().all(|other| other.field.name() != name), "{name} comes twice");
        if let Some((values, dictionary)) = column.dictionary {
            tables.push((values, vec![dictionary.shape]));
            sources.push(dictionary.sources);
        }
        shapes.push(column.shape);
        last.extend(column.sources);
    }
    let fields: Vec<_> = shapes.iter().map(|shape| shape.field.clone()).collect();
    let metadata = metadata.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
    let schema = Schema::new_with_metadata(fields, metadata.collect());
    tables.push((rows, shapes));
    sources.push(last);
    let batches = format::batches(&tables, &schema)?;

    let sources = Mutex::new(sources);
    let total = batches.iter().map(|batch| batch.layout.body as u64).sum();
    let written = run(1, 1, total, monitor, |_, worker| {
        let mut sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = target.temporary()?;
        let mut body = Body::new(file.as_file_mut(), &target.path, worker);
        for (batch, sources) in batches.iter().zip(sources.iter_mut()) {
            body.put(&batch.head)?;
            assert_eq!(batch.layout.data.len(), sources.len());
            for ((_, data), source) in batch.layout.data.iter().zip(sources) {
                body.put_buffer(data.len(), source)?;
            }
        }
        let checksums = std::mem::take(&mut body.checksums);
        body.put(&format::tail(&batches, &schema, &checksums)?)?;
        body.finish()?;
        Ok(file)
    })?;
    for file in written {
        target.publish(file?)?;
    }
    Ok(())
}

/// Where a file is going to be.
struct Target {
    path: PathBuf,
    folder: PathBuf,
    /// Of the file that is there.
    permissions: Option<fs::Permissions>,
}

impl Target {
    fn of(path: &Path) -> Result<Self> {
        let (path, permissions) = match fs::metadata(path) {
            Ok(found) if !found.is_file() => return Err(Error::not_a_file(path)),
            Ok(found) => {
                let real = fs::canonicalize(path).map_err(|error| Error::file(path, &error))?;
                (real, Some(found.permissions()))
            }
            // A link whose file is yet to be made names where.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
                Ok(to) => return Self::of(&path.parent().unwrap_or(Path::new("")).join(to)),
                Err(_) => (path.to_path_buf(), None),
            },
            Err(error) => return Err(Error::file(path, &error)),
        };
        if path.file_name().is_none() {
            return Err(Error::not_a_file(&path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_path_buf();
        Ok(Self { path, folder, permissions })
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::file(&self.path, error)
    }

    /// A new file beside the target, open to nobody to whom that is not; it is removed when
    /// dropped. Where there is no target yet, the system applies the process's umask.
    fn temporary(&self) -> Result<NamedTempFile> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if self.permissions.is_some() {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let file = tempfile::Builder::new()
            .prefix(".omendb-")
            .suffix(".tmp")
            .make_in(&self.folder, |path| options.open(path))
            .map_err(|error| self.failed(&error))?;
        if let Some(permissions) = &self.permissions {
            let set = file.as_file().set_permissions(permissions.clone());
            set.map_err(|error| self.failed(&error))?;
        }
        Ok(file)
    }

    fn publish(&self, file: NamedTempFile) -> Result<()> {
        file.persist(&self.path).map_err(|refused| self.failed(&refused.error))?;
        // A name is on the disk only when its folder is.
        #[cfg(unix)]
        if let Err(error) = File::open(&self.folder).and_then(|folder| folder.sync_all()) {
            // Some file systems do not sync folders, and say so; nor can who may not read one.
            let unable = [
                io::ErrorKind::InvalidInput,
                io::ErrorKind::Unsupported,
                io::ErrorKind::PermissionDenied,
            ];
            if !unable.contains(&error.kind()) {
                let Error::File { path, code, reason } = self.failed(&error) else {
                    return Err(self.failed(&error));
                };
                let reason = format!("written, but its folder was not synced: {reason}");
                return Err(Error::File { path, code, reason });
            }
        }
        Ok(())
    }
}

/// The bytes of the file as they go to the disk.
struct Body<'a, 'b> {
    file: BufWriter<&'a mut File>,
    path: &'a Path,
    worker: &'a Worker<'b>,
    /// Bytes since the disk was last waited for.
    unsynced: usize,
    piece: Vec<u8>,
    checksums: Vec<u32>,
}

impl<'a, 'b> Body<'a, 'b> {
    fn new(file: &'a mut File, path: &'a Path, worker: &'a Worker<'b>) -> Self {
        let file = BufWriter::with_capacity(GATHER, file);
        Self { file, path, worker, unsynced: 0, piece: Vec::new(), checksums: Vec::new() }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::file(self.path, &error))?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC {
            self.sync()?;
        }
        Ok(())
    }

    /// Waits until the disk has all bytes so far.
    fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| Error::file(self.path, &error))
    }

    fn finish(mut self) -> Result<()> {
        self.sync()
    }

    /// Writes a buffer of `len` bytes and its padding, and notes its checksums.
    fn put_buffer(&mut self, len: usize, source: &mut Source<'_>) -> Result<()> {
        let padded = len.next_multiple_of(ALIGN);
        let (mut done, mut hasher) = (0, crc32fast::Hasher::new());
        let mut piece = std::mem::take(&mut self.piece);
        while done < padded {
            piece.clear();
            source(&mut piece);
            assert!(!piece.is_empty(), "a column ends after {done} of {len} bytes");
            assert!(piece.len() <= len - done, "a column has more than {len} bytes");
            if done + piece.len() == len {
                piece.resize(padded - done, 0);
            }
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let (part, after) = rest.split_at(rest.len().min(BLOCK - done % BLOCK));
                hasher.update(part);
                done += part.len();
                rest = after;
                if done % BLOCK == 0 || done == padded {
                    self.checksums.push(std::mem::take(&mut hasher).finalize());
                }
            }
            self.put(&piece)?;
            if !self.worker.advance(piece.len() as u64) {
                return Err(Error::Interrupted);
            }
        }
        self.piece = piece;
        Ok(())
    }
}
