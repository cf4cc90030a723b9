use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_ipc::{
    Block, BodyCompression, BodyCompressionArgs, Buffer, DictionaryBatch, DictionaryBatchArgs,
    DictionaryEncoding, DictionaryEncodingArgs, Endianness, Field, FieldArgs, FieldNode,
    FixedSizeList, FixedSizeListArgs, FloatingPoint, FloatingPointArgs, Footer, FooterArgs, Int,
    IntArgs, KeyValue, KeyValueArgs, Message, MessageArgs, MessageHeader, MetadataVersion,
    Precision, RecordBatch, RecordBatchArgs, Schema, SchemaArgs, Type, Utf8, Utf8Args,
};
use flatbuffers::FlatBufferBuilder;
use half::f16;
use tempfile::TempDir;

use super::format::seal_footer;
use super::*;
use crate::error::{Error, Result};
use crate::threads::{Monitor, Silent};

/// A file of every number type, 5 rows, also for readers in other languages and the fuzzer.
const SAMPLE: &[u8] = include_bytes!("sample.omen");
const SAMPLE_ROWS: usize = 5;

fn sample(path: &Path) {
    let ids: Vec<i64> = vec![7, -1, 1 << 40, 0, 3];
    let count = |width: usize| (0..SAMPLE_ROWS * width).map(|i| i as u8);
    let vectors: Vec<f32> = count(3).map(|i| f32::from(i) / 8.0).collect();
    let halves: Vec<f16> = count(2).map(|i| f16::from_f32(f32::from(i) - 4.0)).collect();
    let brains: Vec<u16> = count(2).map(|i| half::bf16::from_f32(f32::from(i)).to_bits()).collect();
    let codes: Vec<i8> = count(4).map(|i| i as i8 - 10).collect();
    let bytes: Vec<u8> = count(1).collect();
    let links: Vec<u32> = count(2).map(u32::from).collect();
    let scales: Vec<f64> = count(1).map(|i| f64::from(i) / 3.0).collect();
    let columns = vec![
        Column::of("ids", 0, &ids),
        Column::of("vectors", 3, &vectors),
        Column::of("halves", 2, &halves),
        Column::of("brains", 2, &brains),
        Column::of("codes", 4, &codes),
        Column::of("bytes", 1, &bytes),
        Column::of("links", 2, &links),
        Column::of("scales", 0, &scales),
    ];
    let metadata = [("omendb.metric", "cosine"), ("note", "für alle")];
    write(path, SAMPLE_ROWS, columns, &metadata, &mut Silent).unwrap();
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn names(folder: &TempDir) -> Vec<String> {
    let names = fs::read_dir(folder.path()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn reason(result: Result<()>) -> String {
    match result {
        Err(Error::Damaged { what, .. }) => what,
        other => panic!("expected a damaged file, got {other:?}"),
    }
}

#[test]
fn the_committed_sample_reads_as_it_was_written() {
    explore(SAMPLE).unwrap();
    if cfg!(miri) {
        return; // it maps no files
    }
    let folder = folder();
    let path = folder.path().join("sample.omen");
    fs::write(&path, SAMPLE).unwrap();
    let mapped = Mapped::open(&path).unwrap();
    assert_eq!(mapped.rows(), SAMPLE_ROWS);
    assert_eq!(mapped.metadata("omendb.metric"), Some("cosine"));
    assert_eq!(mapped.metadata("note"), Some("für alle"));
    assert_eq!(mapped.metadata("omendb.seal"), None);
    assert_eq!(mapped.column("absent"), None);
    let ids = mapped.expect("ids", Kind::I64, 0).unwrap();
    assert_eq!(mapped.values::<i64>(&ids, 0..5).unwrap(), [7, -1, 1 << 40, 0, 3]);
    let vectors = mapped.expect("vectors", Kind::F32, 3).unwrap();
    assert_eq!(mapped.values::<f32>(&vectors, 3..6).unwrap(), [0.375, 0.5, 0.625]);
    let codes = mapped.column("codes").unwrap();
    assert_eq!((codes.kind, codes.width, codes.len), (Kind::I8, 4, 20));
    for (name, kind, width) in [("codes", Kind::U8, 4), ("codes", Kind::I8, 5), ("x", Kind::I8, 4)]
    {
        let error = mapped.expect(name, kind, width).unwrap_err();
        assert!(matches!(error, Error::Damaged { column: Some(c), .. } if c == name));
    }
}

/// `OMENDB_WRITE_SAMPLE=1 cargo test sample` writes the committed file again.
#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn the_same_columns_give_the_same_bytes() {
    let folder = folder();
    let (a, b) = (folder.path().join("a.omen"), folder.path().join("b.omen"));
    sample(&a);
    sample(&b);
    let written = fs::read(a).unwrap();
    assert_eq!(written, fs::read(b).unwrap());
    if std::env::var_os("OMENDB_WRITE_SAMPLE").is_some() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/file/sample.omen");
        fs::write(home, &written).unwrap();
    }
}

fn round_trip<T: Value + PartialEq + std::fmt::Debug>(
    folder: &TempDir,
    number: impl Fn(usize) -> T,
) {
    let path = folder.path().join("round.omen");
    for (rows, width) in [(0, 0), (0, 9), (1, 0), (1, 1), (3, 4096), (70_001, 0), (20_011, 7)] {
        let values: Vec<T> = (0..rows * width.max(1)).map(&number).collect();
        // Pieces of uneven size, as they come from the memory of chunks.
        let (mut next, mut step) = (0, 1);
        let pieces = Column::new("pieces", T::KIND, width, |bytes| {
            let end = values.len().min(next + step);
            T::put(&values[next..end], bytes);
            (next, step) = (end, step * 3 % 10_007 + 1);
        });
        let columns = vec![Column::of("whole", width, &values), pieces];
        write(&path, rows, columns, &[], &mut Silent).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        assert_eq!(mapped.rows(), rows);
        for name in ["whole", "pieces"] {
            let view = mapped.expect(name, T::KIND, width).unwrap();
            assert_eq!(mapped.pointer(&view).addr() % ALIGN, 0);
            assert_eq!(view.len, rows * width.max(1) * T::KIND.size());
            assert_eq!(mapped.values::<T>(&view, 0..values.len()).unwrap(), values);
            let middle = values.len() / 3..values.len() / 2;
            assert_eq!(mapped.values::<T>(&view, middle.clone()).unwrap(), values[middle]);
        }
        mapped.check(&[]).unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "it maps files")]
fn every_number_type_comes_back() {
    let folder = folder();
    round_trip(&folder, |i| i as i64 * 0x1234_5678_9abc - 77);
    round_trip(&folder, |i| i as i8);
    round_trip(&folder, |i| i as u8);
    round_trip(&folder, |i| i as u16);
    round_trip(&folder, |i| i as u32 * 12_345);
    round_trip(&folder, |i| f16::from_f32(i as f32));
    round_trip(&folder, |i| i as f32 * 0.1);
    round_trip(&folder, |i| i as f64 * 0.1);
}

#[test]
#[cfg_attr(miri, ignore = "takes hours there")]
fn no_change_of_a_single_byte_is_silent() {
    let mut bytes = SAMPLE.to_vec();
    for at in 0..bytes.len() {
        let right = bytes[at];
        for wrong in 0..=255 {
            bytes[at] = wrong;
            assert_eq!(explore(&bytes).is_ok(), wrong == right, "byte {at} as {wrong}");
        }
        bytes[at] = right;
    }
}

#[test]
fn no_truncation_and_no_addition_is_silent() {
    let step = if cfg!(miri) { 97 } else { 1 };
    for len in (0..SAMPLE.len()).step_by(step) {
        assert!(explore(&SAMPLE[..len]).is_err(), "cut at {len}");
        assert!(explore(&SAMPLE[len + 1..]).is_err(), "without the first {len}");
    }
    for more in 1..100 {
        for byte in [0, 0xff, b'1'] {
            let mut bytes = SAMPLE.to_vec();
            bytes.resize(SAMPLE.len() + more, byte);
            assert!(explore(&bytes).is_err(), "{more} times {byte} added");
            bytes.rotate_right(more);
            assert!(explore(&bytes).is_err(), "{more} times {byte} before");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it maps files")]
fn damage_is_found_at_first_touch_and_named() {
    let folder = folder();
    let path = folder.path().join("x.omen");
    let (ids, codes): (Vec<i64>, Vec<u8>) = (0..50_000).map(|i| (i, i as u8)).unzip();
    let columns = || vec![Column::of("ids", 0, &ids), Column::of("codes", 0, &codes)];
    write(&path, ids.len(), columns(), &[], &mut Silent).unwrap();
    let good = fs::read(&path).unwrap();
    let at = good
        .windows(16)
        .position(|w| w == [ids[20_000].to_le_bytes(), ids[20_001].to_le_bytes()].concat());
    let mut bad = good.clone();
    bad[at.unwrap()] ^= 4;
    fs::write(&path, &bad).unwrap();

    let mapped = Mapped::open(&path).unwrap();
    let (ids, codes) = (mapped.column("ids").unwrap(), mapped.column("codes").unwrap());
    let block = 20_000 * 8 / BLOCK;
    for _ in 0..2 {
        mapped.verify(&codes, 0..codes.len).unwrap();
        mapped.verify(&ids, 0..block * BLOCK).unwrap();
        mapped.verify(&ids, (block + 1) * BLOCK..ids.len).unwrap();
        mapped.verify(&ids, 160_001..160_001).unwrap();
        for result in [mapped.verify(&ids, 160_001..160_002), mapped.check(&[])] {
            let error = result.unwrap_err();
            assert!(error.to_string().contains("block 2 of column ids (bytes "), "{error}");
            assert!(matches!(error, Error::Damaged { column: Some(name), .. } if name == "ids"));
        }
    }
    // A block that was found good is not read again.
    fs::write(&path, &good).unwrap();
    let mapped = Mapped::open(&path).unwrap();
    mapped.check(&[]).unwrap();
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &bad).unwrap();
    mapped.check(&[]).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "it maps files")]
fn a_mapped_file_may_be_saved_over() {
    let folder = folder();
    let path = folder.path().join("x.omen");
    let old: Vec<u32> = (0..100_000).collect();
    write(&path, old.len(), vec![Column::of("x", 0, &old)], &[], &mut Silent).unwrap();
    let mapped = Arc::new(Mapped::open(&path).unwrap());
    let view = mapped.column("x").unwrap();
    // The new file's values come from the old one's map.
    let (mut next, source) = (0, Arc::clone(&mapped));
    let column = Column::new("x", Kind::U32, 0, move |bytes| {
        let values: Vec<u32> = source.values(&view, next..next + 1000).unwrap();
        u32::put(&values.iter().map(|x| x + 1).collect::<Vec<_>>(), bytes);
        next += 1000;
    });
    write(&path, old.len(), vec![column], &[], &mut Silent).unwrap();
    assert_eq!(mapped.values::<u32>(&view, 0..old.len()).unwrap(), old);
    let new = Mapped::open(&path).unwrap();
    assert_eq!(new.values::<u32>(&view, 0..2).unwrap(), [1, 2]);
    assert_eq!(names(&folder), ["x.omen"]);
}

struct Refuse {
    polls: usize,
    finish: bool,
}

impl Monitor for Refuse {
    fn poll(&mut self, done: u64, total: u64) -> bool {
        assert!(done <= total);
        self.polls = self.polls.saturating_sub(1);
        self.polls > 0
    }

    fn finish(&mut self) -> bool {
        self.finish
    }
}

/// A column of `rows` bytes that comes slowly, so that the monitor is asked.
fn slow(rows: usize) -> Column<'static> {
    let mut left = rows;
    Column::new("x", Kind::U8, 0, move |bytes| {
        std::thread::sleep(Duration::from_millis(15));
        let now = left.min(5 << 20);
        left -= now;
        bytes.resize(now, 1);
    })
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn an_interrupted_save_leaves_the_folder_as_it_was() {
    let folder = folder();
    let path = folder.path().join("x.omen");
    for before in [None, Some(b"an older file".as_slice())] {
        if let Some(before) = before {
            fs::write(&path, before).unwrap();
        }
        let files = names(&folder);
        for (polls, finish) in [(1, true), (3, true), (100, false)] {
            let rows = 64 << 20;
            let mut refuse = Refuse { polls, finish };
            let error = write(&path, rows, vec![slow(rows)], &[], &mut refuse).unwrap_err();
            assert_eq!(error, Error::Interrupted);
            assert_eq!(names(&folder), files);
        }
        let broken = Column::new("x", Kind::U8, 0, |_| panic!("a broken source"));
        let saved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            write(&path, 9, vec![broken], &[], &mut Silent)
        }));
        assert!(saved.is_err());
        assert_eq!(names(&folder), files);
        assert_eq!(fs::read(&path).ok().as_deref(), before);
    }
}

fn code(result: Result<impl std::fmt::Debug>) -> Option<i32> {
    match result.unwrap_err() {
        Error::File { code, .. } => code,
        other => panic!("expected a file error, got {other:?}"),
    }
}

#[cfg(unix)]
#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn what_the_system_refuses_is_said_in_its_words() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    let save = |path: &Path| write(path, 1, vec![Column::of("x", 0, &[1u8])], &[], &mut Silent);
    let missing = folder.path().join("missing").join("x.omen");
    assert_eq!(code(save(&missing)), Some(2));
    assert_eq!(code(Mapped::open(&missing)), Some(2));
    let expected = format!("{}: No such file or directory", missing.display());
    assert_eq!(Mapped::open(&missing).unwrap_err().to_string(), expected);
    let shut = folder.path().join("shut");
    fs::create_dir(&shut).unwrap();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(shut.join("probe"), "").is_err() {
        assert_eq!(code(save(&shut.join("x.omen"))), Some(13)); // root is never refused
    }
    for other in [folder.path(), Path::new("/dev/null"), Path::new("/")] {
        assert_eq!(code(save(other)), None);
        assert_eq!(code(Mapped::open(other)), None);
    }
    assert_eq!(code(save(Path::new(""))), None);
    assert_eq!(names(&folder), ["shut"]);
}

#[cfg(unix)]
#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn a_saved_file_has_the_permissions_a_user_expects() {
    use std::os::unix::fs::PermissionsExt;

    let folder = folder();
    let save = |path: &Path| {
        write(path, 1, vec![Column::of("x", 0, &[1u8])], &[], &mut Silent).unwrap();
        assert_eq!(Mapped::open(path).unwrap().rows(), 1);
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (plain, saved) = (folder.path().join("plain"), folder.path().join("saved.omen"));
    fs::write(&plain, "").unwrap();
    save(&saved);
    assert_eq!(mode(&saved), mode(&plain));
    for kept in [0o600, 0o640, 0o666] {
        fs::set_permissions(&saved, fs::Permissions::from_mode(kept)).unwrap();
        save(&saved);
        assert_eq!(mode(&saved), kept);
    }
    let link = folder.path().join("link.omen");
    std::os::unix::fs::symlink("plain", &link).unwrap();
    save(&link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Mapped::open(&plain).unwrap().rows(), 1);
    // Also where it leads to a file that is yet to be.
    fs::remove_file(&plain).unwrap();
    save(&link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Mapped::open(&plain).unwrap().rows(), 1);
}

#[test]
#[cfg_attr(miri, ignore = "it writes files")]
fn what_no_file_can_hold_is_refused_before_anything_is_written() {
    let folder = folder();
    let path = folder.path().join("x.omen");
    let empty = || Column::of::<f64>("x", 1 << 20, &[]);
    let save = |rows, column| write(&path, rows, vec![column], &[], &mut Silent);
    assert!(matches!(save(usize::MAX, empty()), Err(Error::InvalidParameter(_))));
    assert!(matches!(save(1 << 60, empty()), Err(Error::InvalidParameter(_))));
    let wide = Column::of::<u8>("x", 1 << 31, &[]);
    assert!(matches!(save(0, wide), Err(Error::InvalidParameter(_))));
    assert!(names(&folder).is_empty());
}

#[test]
fn hexadecimal_has_one_text_for_each_value() {
    let bytes: Vec<u8> = (0..=255).collect();
    let text = to_hex(bytes.iter().copied());
    assert_eq!(from_hex(&text), Some(bytes));
    assert_eq!(to_hex([0xa0, 0x0f]), "a00f");
    for wrong in ["a", "aF", "0g", "0x", " 00", "é"] {
        assert_eq!(from_hex(wrong), None, "{wrong}");
    }
}

/// A field of a crafted schema.
#[derive(Clone)]
struct CraftedField {
    name: Option<&'static str>,
    number: Number,
    /// The sizes of lists around it, the outermost first.
    lists: Vec<i32>,
    children: usize,
    dictionary: bool,
}

#[derive(Clone, Copy)]
enum Number {
    Int(i32, bool),
    Float(Precision),
    Text,
}

/// Everything a description can say, right or wrong, under right checksums.
#[derive(Clone)]
struct Crafted {
    fields: Vec<CraftedField>,
    endianness: Endianness,
    rows: i64,
    nodes: Vec<(i64, i64)>,
    buffers: Vec<(i64, i64)>,
    compressed: bool,
    variadic: Vec<i64>,
    dictionary_batch: bool,
    message_version: MetadataVersion,
    message_body: i64,
    body: usize,
    /// What is added to the place, the description's and the body's length in the footer.
    block: (i64, i32, i64),
    batches: usize,
    dictionaries: usize,
    entries: BTreeMap<&'static str, Option<String>>,
    /// Entries of the footer that share one text, and its bytes.
    shared_pairs: usize,
    shared_text: usize,
}

impl Crafted {
    /// Two rows of `ids`, an i64, and `vectors`, three f32.
    fn new() -> Self {
        let field = |name, number, lists: &[i32]| CraftedField {
            name: Some(name),
            number,
            lists: lists.to_vec(),
            children: 0,
            dictionary: false,
        };
        let float = Number::Float(Precision::SINGLE);
        Self {
            fields: vec![field("ids", Number::Int(64, true), &[]), field("vectors", float, &[3])],
            endianness: Endianness::Little,
            rows: 2,
            nodes: vec![(2, 0), (2, 0), (6, 0)],
            buffers: vec![(0, 0), (0, 16), (64, 0), (64, 0), (64, 24)],
            compressed: false,
            variadic: Vec::new(),
            dictionary_batch: false,
            message_version: MetadataVersion::V5,
            message_body: 128,
            body: 128,
            block: (0, 0, 0),
            batches: 1,
            dictionaries: 0,
            entries: BTreeMap::new(),
            shared_pairs: 0,
            shared_text: 0,
        }
    }

    fn schema<'a>(
        &self,
        builder: &mut FlatBufferBuilder<'a>,
    ) -> flatbuffers::WIPOffset<Schema<'a>> {
        let mut fields = Vec::new();
        for crafted in &self.fields {
            let (tag, value) = match crafted.number {
                Number::Int(bits, is_signed) => {
                    let int = Int::create(builder, &IntArgs { bitWidth: bits, is_signed });
                    (Type::Int, int.as_union_value())
                }
                Number::Float(precision) => {
                    let float = FloatingPoint::create(builder, &FloatingPointArgs { precision });
                    (Type::FloatingPoint, float.as_union_value())
                }
                Number::Text => (Type::Utf8, Utf8::create(builder, &Utf8Args {}).as_union_value()),
            };
            let dictionary = crafted
                .dictionary
                .then(|| DictionaryEncoding::create(builder, &DictionaryEncodingArgs::default()));
            let name = crafted.name.map(|name| builder.create_string(name));
            let mut args = FieldArgs {
                name,
                type_type: tag,
                type_: Some(value),
                dictionary,
                ..Default::default()
            };
            let children: Vec<_> =
                (0..crafted.children).map(|_| Field::create(builder, &args)).collect();
            args.children = (!children.is_empty()).then(|| builder.create_vector(&children));
            let mut field = Field::create(builder, &args);
            for &size in crafted.lists.iter().rev() {
                let list = FixedSizeList::create(builder, &FixedSizeListArgs { listSize: size });
                let children = Some(builder.create_vector(&[field]));
                let (type_type, type_) = (Type::FixedSizeList, Some(list.as_union_value()));
                let args = FieldArgs { name, type_type, type_, children, ..Default::default() };
                field = Field::create(builder, &args);
            }
            fields.push(field);
        }
        let fields = Some(builder.create_vector(&fields));
        Schema::create(
            builder,
            &SchemaArgs { endianness: self.endianness, fields, ..Default::default() },
        )
    }

    fn message(&self) -> Vec<u8> {
        let mut builder = FlatBufferBuilder::new();
        let nodes: Vec<_> = self.nodes.iter().map(|&(a, b)| FieldNode::new(a, b)).collect();
        let buffers: Vec<_> = self.buffers.iter().map(|&(a, b)| Buffer::new(a, b)).collect();
        let args = RecordBatchArgs {
            length: self.rows,
            nodes: Some(builder.create_vector(&nodes)),
            buffers: Some(builder.create_vector(&buffers)),
            compression: self
                .compressed
                .then(|| BodyCompression::create(&mut builder, &BodyCompressionArgs::default())),
            variadicBufferCounts: Some(builder.create_vector(&self.variadic)),
        };
        let batch = RecordBatch::create(&mut builder, &args);
        let (header_type, header) = if self.dictionary_batch {
            let args = DictionaryBatchArgs { id: 1, data: Some(batch), isDelta: false };
            let batch = DictionaryBatch::create(&mut builder, &args);
            (MessageHeader::DictionaryBatch, batch.as_union_value())
        } else {
            (MessageHeader::RecordBatch, batch.as_union_value())
        };
        let args = MessageArgs {
            version: self.message_version,
            header_type,
            header: Some(header),
            bodyLength: self.message_body,
            custom_metadata: None,
        };
        let message = Message::create(&mut builder, &args);
        builder.finish(message, None);
        builder.finished_data().to_vec()
    }

    /// The file, and the reason why it is refused.
    fn refusal(&self) -> String {
        reason(explore(&self.bytes()))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"ARROW1\0\0".to_vec();
        let message = self.message();
        let origin = (16 + message.len()).next_multiple_of(64);
        bytes.extend([0xff; 4]);
        bytes.extend((origin as i32 - 16).to_le_bytes());
        bytes.extend(message);
        bytes.resize(origin, 0);
        let head = crc32fast::hash(&bytes);
        bytes.resize(origin + self.body, 0);
        let body = &bytes[origin..];
        let blocks = [&body[..64.min(body.len())], &body[64.min(body.len())..]];
        let blocks: Vec<u32> = blocks.map(crc32fast::hash).to_vec();
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);

        let mut builder = FlatBufferBuilder::new();
        let mut entries = BTreeMap::from([
            ("omendb.format", Some("1".to_owned())),
            ("omendb.head", Some(to_hex(head.to_le_bytes()))),
            ("omendb.blocks", Some(to_hex(blocks.iter().flat_map(|block| block.to_le_bytes())))),
        ]);
        entries.extend(self.entries.clone());
        let mut pairs = Vec::new();
        let seal = builder.create_string("00000000");
        for (key, value) in entries {
            let key = Some(builder.create_string(key));
            let value = value.map(|value| builder.create_string(&value));
            pairs.push(KeyValue::create(&mut builder, &KeyValueArgs { key, value }));
        }
        let value = Some(builder.create_string(&"x".repeat(self.shared_text)));
        let args = KeyValueArgs { key: value, value };
        for _ in 0..self.shared_pairs {
            pairs.push(KeyValue::create(&mut builder, &args));
        }
        let args = KeyValueArgs { key: None, value: Some(seal) };
        pairs.push(KeyValue::create(&mut builder, &args));
        let pairs = Some(builder.create_vector(&pairs));
        let schema = Some(self.schema(&mut builder));
        let block = Block::new(
            8 + self.block.0,
            origin as i32 - 8 + self.block.1,
            self.body as i64 + self.block.2,
        );
        let args = FooterArgs {
            version: MetadataVersion::V5,
            schema,
            dictionaries: Some(builder.create_vector(&vec![block; self.dictionaries])),
            recordBatches: Some(builder.create_vector(&vec![block; self.batches])),
            custom_metadata: pairs,
        };
        let footer = Footer::create(&mut builder, &args);
        builder.finish(footer, None);
        let mut footer = builder.finished_data().to_vec();
        seal_footer(&mut footer);
        bytes.extend(&footer);
        bytes.extend((footer.len() as i32).to_le_bytes());
        bytes.extend(b"ARROW1");
        bytes
    }
}

#[test]
fn a_description_crafted_right_is_accepted() {
    explore(&Crafted::new().bytes()).unwrap();
}

#[test]
fn every_lie_about_places_and_sizes_is_refused() {
    const PLACES: &str = "its columns are not where those of its rows would be";
    let crafted = |change: &dyn Fn(&mut Crafted)| {
        let mut crafted = Crafted::new();
        change(&mut crafted);
        crafted.refusal()
    };
    for rows in [0, 1, 3, 1 << 40, 1 << 59, i64::MAX / 8] {
        let refused = crafted(&|c| c.rows = rows);
        assert!(refused == PLACES || refused == "its number of rows is impossible", "{refused}");
    }
    for rows in [-1, i64::MIN, i64::MAX, i64::MAX / 4] {
        assert_eq!(crafted(&|c| c.rows = rows), "its number of rows is impossible");
    }
    // Rows, values and bytes that agree with one another, but not with the file.
    for rows in [9, 1 << 40] {
        let refused = crafted(&|c| {
            let at = (rows * 8 + 63) / 64 * 64;
            c.rows = rows;
            c.nodes = vec![(rows, 0), (rows, 0), (rows * 3, 0)];
            c.buffers = vec![(0, 0), (0, rows * 8), (at, 0), (at, 0), (at, rows * 12)];
        });
        assert_eq!(refused, "its columns do not fill its record batch");
    }
    for number in [0, 1, 2] {
        for (length, nulls) in [(0, 0), (-2, 0), (i64::MAX, 0), (2, 1), (6, -1), (5, 0)] {
            assert_eq!(crafted(&|c| c.nodes[number] = (length, nulls)), PLACES);
        }
    }
    for number in [1, 4] {
        for offset in [-64, -1, 1, 8, 63, 128, 192, 1 << 40, i64::MIN, i64::MAX - 63] {
            assert_eq!(crafted(&|c| c.buffers[number].0 = offset), PLACES);
        }
        for length in [-1, 0, 15, 23, 25, 64, 128, 1 << 40, i64::MIN, i64::MAX] {
            assert_eq!(crafted(&|c| c.buffers[number].1 = length), PLACES);
        }
    }
    for validity in [0, 2, 3] {
        for buffer in [(64, 1), (0, 64), (-64, 0), (128, i64::MAX)] {
            assert_eq!(crafted(&|c| c.buffers[validity] = buffer), PLACES);
        }
    }
    assert_eq!(crafted(&|c| c.buffers[4].0 = 0), PLACES); // two columns in one place
    assert_eq!(crafted(&|c| c.buffers.swap(1, 4)), PLACES);
    assert_eq!(crafted(&|c| c.buffers.truncate(4)), PLACES);
    assert_eq!(crafted(&|c| c.buffers.push((128, 0))), PLACES);
    assert_eq!(crafted(&|c| c.nodes.truncate(2)), PLACES);
    assert_eq!(crafted(&|c| c.nodes.clear()), PLACES);
    assert_eq!(crafted(&|c| c.fields.truncate(1)), PLACES);
    assert_eq!(crafted(&|c| c.fields[1].lists[0] = i32::MAX), PLACES);

    for body in [0, 64, 192, 1 << 20] {
        let contradicted = "its record batch's message contradicts the footer";
        assert_eq!(crafted(&|c| c.body = body), contradicted);
        assert_eq!(crafted(&|c| c.message_body = body as i64), contradicted);
        let unfilled = crafted(&|c| (c.body, c.message_body) = (body, body as i64));
        assert_eq!(unfilled, "its columns do not fill its record batch");
    }
    for offset in [-8, 8, -16, 64, 1 << 40, i64::MIN, i64::MAX - 8, 3] {
        let refused = crafted(&|c| c.block.0 = offset);
        assert!(refused.starts_with("its record batch "), "{refused}");
    }
    for length in [-64, 64, 1, -1, i32::MAX - 1024, i32::MIN] {
        let refused = crafted(&|c| c.block.1 = length);
        assert!(refused.starts_with("its record batch "), "{refused}");
    }
    for length in [-64, 64, 1, -1, i64::MAX - 128, i64::MIN, -129] {
        let refused = crafted(&|c| c.block.2 = length);
        assert!(refused.starts_with("its record batch "), "{refused}");
    }
    // The place and the length may move together, into what the message does not say.
    let refused = crafted(&|c| c.block = (64, -64, 0));
    assert_eq!(refused, "its record batch has no message");
}

#[test]
fn every_kind_of_column_or_file_that_is_not_ours_is_refused() {
    let crafted = |change: &dyn Fn(&mut Crafted)| {
        let mut crafted = Crafted::new();
        change(&mut crafted);
        crafted.refusal()
    };
    let foreign = "column vectors is of a type that omendb does not write";
    let numbers = [
        Number::Int(32, true),
        Number::Int(16, true),
        Number::Int(64, false),
        Number::Int(0, false),
        Number::Int(-8, true),
        Number::Int(i32::MAX, true),
        Number::Float(Precision(3)),
        Number::Float(Precision(-1)),
        Number::Text,
    ];
    for number in numbers {
        assert_eq!(crafted(&|c| c.fields[1].number = number), foreign);
    }
    for lists in [vec![0], vec![-3], vec![i32::MIN], vec![3, 1], vec![1, 1, 1, 3]] {
        assert_eq!(crafted(&|c| c.fields[1].lists.clone_from(&lists)), foreign);
    }
    let refused = crafted(&|c| c.fields[1].lists = vec![1; 100]);
    assert!(refused.starts_with("its footer: "), "{refused}");
    for children in [1, 2] {
        assert_eq!(crafted(&|c| c.fields[1].children = children), foreign);
        let refused = crafted(&|c| c.fields[0].children = children);
        assert_eq!(refused, foreign.replace("vectors", "ids"));
    }
    assert_eq!(crafted(&|c| c.fields[1].dictionary = true), foreign);
    assert_eq!(crafted(&|c| c.fields[1].name = Some("ids")), "it has two columns named ids");
    assert_eq!(crafted(&|c| c.fields[1].name = None), "a column has no name");
    assert_eq!(crafted(&|c| c.fields.clear()), "it has no columns");
    assert_eq!(crafted(&|c| c.endianness = Endianness::Big), "it is big-endian");
    assert_eq!(crafted(&|c| c.compressed = true), "it is compressed");
    assert_eq!(crafted(&|c| c.variadic = vec![1]), "it has buffers of variable number");
    assert_eq!(crafted(&|c| c.dictionary_batch = true), "its message is not a record batch");
    let refused = crafted(&|c| c.dictionaries = 1);
    assert_eq!(refused, "its record batch does not fill the file");
    for batches in [0, 2, 50] {
        assert_eq!(crafted(&|c| c.batches = batches), "it has not one record batch");
    }
    let refused = crafted(&|c| c.message_version = MetadataVersion::V4);
    assert_eq!(refused, "its record batch's message contradicts the footer");
}

#[test]
fn a_small_file_cannot_describe_gigabytes_of_text() {
    let mut crafted = Crafted::new();
    crafted.shared_text = 10_000;
    explore(&Crafted { shared_pairs: 1, ..crafted.clone() }.bytes()).unwrap();
    let refused = Crafted { shared_pairs: 1_000, ..crafted }.refusal();
    assert!(refused.starts_with("its footer: Apparent size too large"), "{refused}");
    let mut crafted = Crafted::new();
    let name = "\u{1b}[2J and\n so on, ".repeat(100);
    crafted.fields[1].name = Some(Box::leak(name.into_boxed_str()));
    crafted.fields[1].lists = vec![0];
    let refused = crafted.refusal();
    assert!(refused.len() < 200 && !refused.contains(char::is_control), "{refused}");
}

#[test]
fn every_entry_of_the_footer_must_be_there_and_fit() {
    let crafted = |key, value: Option<&str>| {
        let mut crafted = Crafted::new();
        crafted.entries.insert(key, value.map(str::to_owned));
        crafted.refusal()
    };
    for key in ["omendb.format", "omendb.head", "omendb.blocks"] {
        assert_eq!(crafted(key, None), format!("its footer has no {key}"));
    }
    let refused = crafted("omendb.format", Some("3"));
    assert_eq!(refused, "its format is 3, and this omendb reads formats up to 2");
    for head in ["", "00000000", "0000000", "zzzzzzzz", "000000000000"] {
        assert_eq!(crafted("omendb.head", Some(head)), "its head does not match its checksum");
    }
    for blocks in ["", "0", "00000000", "000000000000000", "0000000000000000ffffffff", "éééééééé"]
    {
        let refused = crafted("omendb.blocks", Some(blocks));
        assert_eq!(refused, "it has not one checksum for each block");
    }
    let refused = crafted("omendb.blocks", Some("0000000000000000"));
    assert!(refused.starts_with("block 0 of column ids "), "{refused}");
}

/// Where the buffers of a good file are, and what stands before and between them.
pub(super) struct Places {
    pub(super) described: Vec<Range<usize>>,
    blocks: Vec<Range<usize>>,
}

impl Places {
    pub(super) fn of(good: &[u8]) -> Self {
        let mapped = Mapped::of_bytes(good).unwrap();
        let (mut described, mut blocks, mut end) = (vec![], vec![], 0);
        for (_, buffer) in &mapped.parts.buffers {
            described.push(end..buffer.start);
            end = buffer.end.next_multiple_of(ALIGN);
            let starts = buffer.clone().step_by(BLOCK);
            blocks.extend(starts.map(|start| start..end.min(start + BLOCK)));
        }
        described.retain(|range| !range.is_empty());
        Self { described, blocks }
    }

    /// Makes all checksums right again in a changed copy of that file: each is a text in the
    /// footer, where it was before.
    pub(super) fn reseal(&self, good: &[u8], bytes: &mut [u8]) {
        let head = |bytes: &[u8]| {
            let parts = self.described.iter().map(|part| &bytes[part.clone()]);
            to_hex(crc32fast::hash(&parts.collect::<Vec<_>>().concat()).to_le_bytes())
        };
        let blocks = |bytes: &[u8]| {
            let blocks = self.blocks.iter().map(|block| crc32fast::hash(&bytes[block.clone()]));
            to_hex(blocks.flat_map(u32::to_le_bytes))
        };
        for (before, now) in [(head(good), head(bytes)), (blocks(good), blocks(bytes))] {
            let found = good.windows(before.len()).rposition(|text| text == before.as_bytes());
            bytes[found.unwrap()..][..now.len()].copy_from_slice(now.as_bytes());
        }
        let ends = bytes.len() - 10;
        let length = i32::from_le_bytes(good[ends..ends + 4].try_into().unwrap());
        seal_footer(&mut bytes[ends - length as usize..ends]);
    }
}

/// Random changes, most under checksums made right again, so that what lies behind them is tried.
fn mutate(mutations: u64) {
    let length = |bytes: &[u8]| {
        let at = bytes.len() - 10;
        i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    };
    let seed = std::env::var("OMENDB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or(20_260_801);
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut seeds = vec![SAMPLE.to_vec(), Crafted::new().bytes()];
    // It has dictionaries: descriptions between buffers.
    seeds.extend(cfg!(feature = "table").then(|| include_bytes!("arrays.omen").to_vec()));
    let places: Vec<_> = seeds.iter().map(|seed| Places::of(seed)).collect();
    let mut accepted = 0;
    for _ in 0..mutations {
        let number = random(seeds.len());
        let seed = &seeds[number];
        let mut bytes = seed.clone();
        let footer = bytes.len() - 10 - length(&bytes)..bytes.len() - 10;
        // Mostly the descriptions.
        for _ in 0..=random(4) {
            let at = match random(8) {
                0 | 1 => random(bytes.len()),
                2 => random(footer.start.min(1024)),
                _ => footer.start + random(footer.len()),
            };
            match random(5) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                2 => bytes[at] = bytes[at].wrapping_add(random(9) as u8).wrapping_sub(4),
                3 => {
                    let from = random(bytes.len());
                    let len = random(17).min(bytes.len() - at.max(from));
                    bytes.copy_within(from..from + len, at);
                }
                _ => bytes[at] = random(256) as u8,
            }
        }
        if random(16) > 0 {
            places[number].reseal(seed, &mut bytes);
        }
        if random(64) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        accepted += u64::from(explore(&bytes).is_ok());
    }
    // Changed names and metadata are good files; if there were none, nothing got behind the seal.
    assert!(0 < accepted && accepted < mutations, "{accepted} of {mutations} accepted");
}

#[test]
fn no_mutation_does_more_than_be_refused() {
    mutate(if cfg!(miri) { 50 } else { 20_000 });
}

#[test]
#[ignore = "minutes: a million mutations"]
fn no_mutation_of_a_million_does_more_than_be_refused() {
    mutate(1_000_000);
}
