//! The descriptions in the file: made for given columns, and read with distrust.
//!
//! Both directions meet in [`Layout`]: the one placing of buffers that belongs to given rows and
//! columns. The writer follows it; the reader computes it again from what the file claims and
//! compares. Overlapping, reordered, misaligned or oversized buffers need no rules of their own.

use std::collections::HashSet;
use std::ops::Range;

use arrow_ipc::{
    Block, Buffer, Endianness, Field, FieldArgs, FieldNode, FixedSizeList, FixedSizeListArgs,
    FloatingPoint, FloatingPointArgs, Footer, FooterArgs, Int, IntArgs, KeyValue, KeyValueArgs,
    Message, MessageArgs, MessageHeader, MetadataVersion, Precision, RecordBatch, RecordBatchArgs,
    Schema, SchemaArgs, Type, root_as_footer_with_opts, root_as_message_with_opts,
};
use flatbuffers::{
    FlatBufferBuilder, ForwardsUOffset, InvalidFlatbuffer, UnionWIPOffset, Vector, VerifierOptions,
    WIPOffset,
};

use super::map::Map;
use super::{ALIGN, BLOCK, Kind, Shape, from_hex, to_hex};
use crate::error::{Error, Result};

/// The version of the layout that `mod.rs` describes.
const FORMAT: &str = "1";
/// How the file begins and, less the zeros, ends.
const MAGIC: [u8; 8] = *b"ARROW1\0\0";
/// The footer's length and the magic bytes after it.
const TAIL: usize = 4 + 6;
/// What stands before each message's length.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What a reader of the stream format takes for the end: a message of no length.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// The footer's end before it is sealed: the last string, its terminator, and padding.
const UNSEALED: [u8; 12] = *b"00000000\0\0\0\0";

type Pair<'a> = (&'a str, &'a str);
type Pairs<'a> = Vector<'a, ForwardsUOffset<KeyValue<'a>>>;

/// Where everything lies in the body, for given rows and columns.
pub(super) struct Layout {
    nodes: Vec<FieldNode>,
    buffers: Vec<Buffer>,
    /// The bytes of each column's values, counted from the body's start.
    pub(super) data: Vec<Range<usize>>,
    /// Bytes of the body.
    pub(super) body: usize,
}

impl Layout {
    /// None if the numbers are too large for any file.
    pub(super) fn new(rows: usize, shapes: &[Shape]) -> Option<Self> {
        let int = |x: usize| i64::try_from(x).ok();
        int(rows)?;
        let mut layout = Self { nodes: vec![], buffers: vec![], data: vec![], body: 0 };
        for shape in shapes {
            let values = rows.checked_mul(shape.width.max(1))?;
            let (start, end) = (layout.body, values.checked_mul(shape.kind.size())?);
            let end = start.checked_add(end)?;
            layout.body = end.checked_next_multiple_of(ALIGN)?;
            // A buffer of no length says that no value is null; a list has one of its own.
            let none_null = Buffer::new(int(start)?, 0);
            if shape.width > 0 {
                layout.nodes.push(FieldNode::new(int(rows)?, 0));
                layout.buffers.push(none_null);
            }
            layout.nodes.push(FieldNode::new(int(values)?, 0));
            layout.buffers.push(none_null);
            layout.buffers.push(Buffer::new(int(start)?, int(end - start)?));
            layout.data.push(start..end);
        }
        int(layout.body)?;
        Some(layout)
    }
}

/// All that stands before the body.
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    /// Where the record batch's message begins.
    batch: usize,
}

/// Describes columns, before their values are written.
///
/// # Errors
///
/// `InvalidParameter` if the descriptions outgrow what Arrow allows.
pub(super) fn head(
    rows: usize,
    shapes: &[Shape],
    layout: &Layout,
    metadata: &[Pair<'_>],
) -> Result<Head> {
    let mut bytes = MAGIC.to_vec();
    let mut builder = FlatBufferBuilder::new();
    let header = schema(&mut builder, shapes, metadata)?.as_union_value();
    push_message(&mut bytes, builder, MessageHeader::Schema, header, 0, 8)?;

    let batch = bytes.len();
    let mut builder = FlatBufferBuilder::new();
    let nodes = Some(builder.create_vector(&layout.nodes));
    let buffers = Some(builder.create_vector(&layout.buffers));
    let args = RecordBatchArgs { length: rows as i64, nodes, buffers, ..Default::default() };
    let header = RecordBatch::create(&mut builder, &args).as_union_value();
    let kind = MessageHeader::RecordBatch;
    push_message(&mut bytes, builder, kind, header, layout.body as i64, ALIGN)?;
    Ok(Head { bytes, batch })
}

/// Appends a message, padded so that what follows begins at a multiple of `align`.
fn push_message<'a>(
    bytes: &mut Vec<u8>,
    mut builder: FlatBufferBuilder<'a>,
    header_type: MessageHeader,
    header: WIPOffset<UnionWIPOffset>,
    body: i64,
    align: usize,
) -> Result<()> {
    let args = MessageArgs {
        version: MetadataVersion::V5,
        header_type,
        header: Some(header),
        bodyLength: body,
        custom_metadata: None,
    };
    let message: WIPOffset<Message<'a>> = Message::create(&mut builder, &args);
    builder.finish(message, None);
    let message = builder.finished_data();
    let start = bytes.len() + CONTINUATION.len() + 4;
    let end = (start + message.len()).next_multiple_of(align);
    bytes.extend(CONTINUATION);
    bytes.extend(length(end - start)?);
    bytes.extend(message);
    bytes.resize(end, 0);
    Ok(())
}

/// A length as Arrow writes it.
fn length(bytes: usize) -> Result<[u8; 4]> {
    match i32::try_from(bytes) {
        Ok(length) => Ok(length.to_le_bytes()),
        Err(_) => Err(Error::invalid(format!("a file's metadata cannot take {bytes} bytes"))),
    }
}

/// All that stands after the body: its checksums and everything needed to find it.
///
/// # Errors
///
/// `InvalidParameter` as for [`head`].
pub(super) fn tail(
    head: &Head,
    shapes: &[Shape],
    layout: &Layout,
    metadata: &[Pair<'_>],
    checksums: &[u32],
) -> Result<Vec<u8>> {
    let mut builder = FlatBufferBuilder::new();
    // A flatbuffer grows from its end: the string that is made first comes last.
    let unsealed = builder.create_string("00000000");
    let seal = pair(&mut builder, "omendb.seal", unsealed);
    let blocks = to_hex(checksums.iter().flat_map(|checksum| checksum.to_le_bytes()));
    let first = to_hex(crc32fast::hash(&head.bytes).to_le_bytes());
    let mut entries = Vec::new();
    for (key, value) in [("format", FORMAT), ("head", &first), ("blocks", &blocks)] {
        let value = builder.create_string(value);
        entries.push(pair(&mut builder, &format!("omendb.{key}"), value));
    }
    entries.push(seal);
    let entries = builder.create_vector(&entries);
    let schema = schema(&mut builder, shapes, metadata)?;
    let described = (head.bytes.len() - head.batch) as i32; // its message's length fitted
    let block = Block::new(head.batch as i64, described, layout.body as i64);
    let args = FooterArgs {
        version: MetadataVersion::V5,
        schema: Some(schema),
        dictionaries: Some(builder.create_vector::<Block>(&[])),
        recordBatches: Some(builder.create_vector(&[block])),
        custom_metadata: Some(entries),
    };
    let footer = Footer::create(&mut builder, &args);
    builder.finish(footer, None);
    let mut bytes = END.to_vec();
    bytes.extend(builder.finished_data());
    seal_footer(&mut bytes[END.len()..]);
    bytes.extend(length(bytes.len() - END.len())?);
    bytes.extend(&MAGIC[..6]);
    Ok(bytes)
}

/// Writes a finished footer's own checksum into its last string.
pub(super) fn seal_footer(footer: &mut [u8]) {
    let sealed = footer.len() - UNSEALED.len();
    let seal = to_hex(crc32fast::hash(&footer[..sealed]).to_le_bytes());
    footer[sealed..sealed + seal.len()].copy_from_slice(seal.as_bytes());
}

fn pair<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    key: &str,
    value: WIPOffset<&'a str>,
) -> WIPOffset<KeyValue<'a>> {
    let key = Some(builder.create_string(key));
    KeyValue::create(builder, &KeyValueArgs { key, value: Some(value) })
}

fn schema<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    shapes: &[Shape],
    metadata: &[Pair<'_>],
) -> Result<WIPOffset<Schema<'a>>> {
    let mut pairs = Vec::with_capacity(metadata.len());
    for (key, value) in metadata {
        let value = builder.create_string(value);
        pairs.push(pair(builder, key, value));
    }
    let pairs = builder.create_vector(&pairs);
    let mut fields = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let (tag, value) = number(builder, shape.kind);
        let plain = |builder: &mut _, name| field(builder, name, tag, value, &[]);
        fields.push(if shape.width == 0 {
            plain(builder, &shape.name)
        } else {
            let Ok(width) = i32::try_from(shape.width) else {
                let width = shape.width;
                return Err(Error::invalid(format!("a file cannot hold rows of {width} values")));
            };
            let item = plain(builder, "item");
            let list = FixedSizeList::create(builder, &FixedSizeListArgs { listSize: width });
            field(builder, &shape.name, Type::FixedSizeList, list.as_union_value(), &[item])
        });
    }
    let fields = Some(builder.create_vector(&fields));
    let args = SchemaArgs {
        endianness: Endianness::Little,
        fields,
        custom_metadata: Some(pairs),
        features: None,
    };
    Ok(Schema::create(builder, &args))
}

fn field<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    name: &str,
    tag: Type,
    value: WIPOffset<UnionWIPOffset>,
    children: &[WIPOffset<Field<'a>>],
) -> WIPOffset<Field<'a>> {
    let name = Some(builder.create_string(name));
    let children = Some(builder.create_vector(children));
    let args = FieldArgs {
        name,
        nullable: false,
        type_type: tag,
        type_: Some(value),
        children,
        ..Default::default()
    };
    Field::create(builder, &args)
}

fn number(builder: &mut FlatBufferBuilder<'_>, kind: Kind) -> (Type, WIPOffset<UnionWIPOffset>) {
    let bits = kind.size() as i32 * 8;
    let mut int =
        |is_signed| Int::create(builder, &IntArgs { bitWidth: bits, is_signed }).as_union_value();
    let precision = match kind {
        Kind::I64 | Kind::I8 => return (Type::Int, int(true)),
        Kind::U8 | Kind::U16 | Kind::U32 => return (Type::Int, int(false)),
        Kind::F16 => Precision::HALF,
        Kind::F32 => Precision::SINGLE,
        Kind::F64 => Precision::DOUBLE,
    };
    let float = FloatingPoint::create(builder, &FloatingPointArgs { precision });
    (Type::FloatingPoint, float.as_union_value())
}

/// What a file describes, once its description is known to be the only one possible.
pub(super) struct Parts {
    pub(super) rows: usize,
    pub(super) shapes: Vec<Shape>,
    pub(super) metadata: Vec<(String, String)>,
    /// The bytes of each column's values in the file.
    pub(super) data: Vec<Range<usize>>,
    /// One for each block of each column.
    pub(super) checksums: Vec<u32>,
}

type Parsed<T> = std::result::Result<T, String>;

fn ensure(condition: bool, what: &str) -> Parsed<()> {
    if condition { Ok(()) } else { Err(what.to_owned()) }
}

/// What a description of so many bytes may claim to hold. Names and values may lie upon one
/// another in it: a small file could otherwise describe gigabytes of text.
fn limits(bytes: usize) -> VerifierOptions {
    VerifierOptions { max_apparent_size: bytes.saturating_mul(8), ..Default::default() }
}

/// Without the trace of where in the description it was.
fn first_line(error: &InvalidFlatbuffer) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A name as a message shows it, whatever somebody put there.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}

/// Whether a checksum is as expected. A fuzzer cannot guess one, and what lies behind must stand
/// without it.
pub(super) fn matches(checksum: u32, expected: u32) -> bool {
    checksum == expected || cfg!(fuzzing)
}

fn is_checksum(text: &str, checksum: u32) -> bool {
    from_hex(text)
        .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
        .is_some_and(|bytes| matches(checksum, u32::from_le_bytes(bytes)))
}

/// Reads and checks everything but the columns.
///
/// # Errors
///
/// What is wrong, in a sentence about "it", the file.
pub(super) fn parse(map: &Map) -> Parsed<Parts> {
    let ends = map.len().checked_sub(TAIL).filter(|&ends| ends >= MAGIC.len() + END.len());
    let ends = ends.ok_or_else(|| format!("it is cut off at {} bytes", map.len()))?;
    ensure(map.read(0..6) == MAGIC[..6], "it does not begin as an Arrow file does")?;
    ensure(
        map.read(map.len() - 6..map.len()) == MAGIC[..6],
        "it does not end as an Arrow file does: it was cut off, or never was one",
    )?;
    let mut length = [0; 4];
    map.copy(ends, &mut length);
    let starts = usize::try_from(i32::from_le_bytes(length))
        .ok()
        .filter(|&length| length >= UNSEALED.len())
        .and_then(|length| ends.checked_sub(length))
        .filter(|&starts| starts >= MAGIC.len() + END.len() && starts.is_multiple_of(8))
        .ok_or("the length of its footer is impossible")?;
    let bytes = map.read(starts..ends);
    let (sealed, seal) = bytes.split_at(bytes.len() - UNSEALED.len());
    let (seal, padding) = seal.split_at(8);
    let good =
        std::str::from_utf8(seal).is_ok_and(|seal| is_checksum(seal, crc32fast::hash(sealed)));
    ensure(
        good && padding == &UNSEALED[8..],
        "its footer does not match the checksum that omendb would have put there",
    )?;

    let footer = root_as_footer_with_opts(&limits(bytes.len()), &bytes)
        .map_err(|error| format!("its footer: {}", first_line(&error)))?;
    let entries = pairs(footer.custom_metadata());
    let entry = |key: &str| {
        let entry = entries.iter().find(|(k, _)| *k == key);
        entry.map(|(_, value)| *value).ok_or_else(|| format!("its footer has no {key}"))
    };
    let format = entry("omendb.format")?;
    if format != FORMAT {
        let format = shown(format);
        return Err(format!("its format is {format}, and this omendb reads format {FORMAT}"));
    }
    ensure(footer.version() == MetadataVersion::V5, "its footer is not of Arrow's version 5")?;
    let dictionaries = footer.dictionaries().map_or(0, |blocks| blocks.len());
    ensure(dictionaries == 0, "it has dictionaries")?;
    let batches = footer.recordBatches().filter(|batches| batches.len() == 1);
    let block = batches.ok_or("it has not one record batch")?.get(0);
    let batch = usize::try_from(block.offset()).ok().filter(|at| at.is_multiple_of(8));
    let described = usize::try_from(block.metaDataLength()).ok();
    let body = usize::try_from(block.bodyLength()).ok();
    let (Some(batch), Some(described), Some(body)) = (batch, described, body) else {
        return Err("its record batch has an impossible place".into());
    };
    let origin = batch.checked_add(described).filter(|origin| origin.is_multiple_of(ALIGN));
    let end = origin.and_then(|origin| origin.checked_add(body));
    let (Some(origin), Some(end)) = (origin, end) else {
        return Err("its record batch has an impossible place".into());
    };
    ensure(
        batch >= MAGIC.len() && end.checked_add(END.len()) == Some(starts),
        "its record batch does not fill the file",
    )?;
    ensure(map.read(end..starts) == END, "the mark between its columns and its footer is wrong")?;
    ensure(
        is_checksum(entry("omendb.head")?, map.checksum(0..origin)),
        "its head does not match its checksum",
    )?;

    let schema = footer.schema().ok_or("it has no schema")?;
    ensure(schema.endianness() == Endianness::Little, "it is big-endian")?;
    let shapes = shapes(&schema)?;
    let rows = {
        let message = map.read(batch..origin);
        let message = message.strip_prefix(&CONTINUATION);
        let message = message.and_then(|message| message.split_first_chunk::<4>());
        let (length, message) = message.ok_or("its record batch has no message")?;
        ensure(
            usize::try_from(i32::from_le_bytes(*length)) == Ok(message.len()),
            "its record batch's message has another length than the footer says",
        )?;
        batch_rows(message, &shapes, body)?
    };
    let layout = Layout::new(rows, &shapes).filter(|layout| layout.body == body);
    let layout = layout.ok_or("its columns do not fill its record batch")?;
    let data: Vec<_> =
        layout.data.iter().map(|data| origin + data.start..origin + data.end).collect();
    let blocks = data.iter().map(|data| data.len().div_ceil(BLOCK)).sum::<usize>();
    let checksums = entry("omendb.blocks")?;
    let checksums = from_hex(checksums).filter(|bytes| bytes.len() == blocks * 4);
    let checksums = checksums.ok_or("it has not one checksum for each block")?;
    let checksums = checksums.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
    Ok(Parts {
        rows,
        shapes,
        metadata: pairs(schema.custom_metadata())
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        data,
        checksums: checksums.collect(),
    })
}

fn pairs(entries: Option<Pairs<'_>>) -> Vec<(&str, &str)> {
    let entries = entries.iter().flat_map(Vector::iter);
    entries.filter_map(|entry| Some((entry.key()?, entry.value()?))).collect()
}

/// The rows of a record batch whose description is that of these columns.
fn batch_rows(message: &[u8], shapes: &[Shape], body: usize) -> Parsed<usize> {
    let message = root_as_message_with_opts(&limits(message.len()), message)
        .map_err(|error| format!("its record batch's message: {}", first_line(&error)))?;
    let batch = message.header_as_record_batch().ok_or("its message is not a record batch")?;
    ensure(
        message.version() == MetadataVersion::V5
            && usize::try_from(message.bodyLength()) == Ok(body),
        "its record batch's message contradicts the footer",
    )?;
    ensure(batch.compression().is_none(), "it is compressed")?;
    ensure(
        batch.variadicBufferCounts().is_none_or(|counts| counts.is_empty()),
        "it has buffers of variable number",
    )?;
    let rows = usize::try_from(batch.length()).map_err(|_| "its number of rows is impossible")?;
    let layout = Layout::new(rows, shapes).ok_or("its number of rows is impossible")?;
    let nodes = batch.nodes().is_some_and(|nodes| nodes.iter().eq(layout.nodes.iter()));
    let buffers = batch.buffers().is_some_and(|found| found.iter().eq(layout.buffers.iter()));
    ensure(nodes && buffers, "its columns are not where those of its rows would be")?;
    Ok(rows)
}

/// The columns of a schema, if all are such as this crate writes.
fn shapes(schema: &Schema<'_>) -> Parsed<Vec<Shape>> {
    // Without one, nothing would stand behind the number of rows.
    let fields = schema.fields().filter(|fields| !fields.is_empty()).ok_or("it has no columns")?;
    let mut names = HashSet::with_capacity(fields.len());
    let mut shapes = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.name().ok_or("a column has no name")?;
        if !names.insert(name) {
            return Err(format!("it has two columns named {}", shown(name)));
        }
        let refuse = || format!("column {} is of a type that omendb does not write", shown(name));
        let children = field.children().map_or(0, |children| children.len());
        let (width, item) = match field.type_as_fixed_size_list() {
            None if children == 0 => (0, field),
            Some(list) if children == 1 => {
                let width = usize::try_from(list.listSize()).ok().filter(|&width| width > 0);
                let item = field.children().map(|children| children.get(0));
                width.zip(item).ok_or_else(refuse)?
            }
            _ => return Err(refuse()),
        };
        let children = item.children().map_or(0, |children| children.len());
        let dictionary = field.dictionary().is_some() || item.dictionary().is_some();
        let kind = kind(&item).filter(|_| children == 0 && !dictionary).ok_or_else(refuse)?;
        shapes.push(Shape { name: name.to_owned(), kind, width });
    }
    Ok(shapes)
}

fn kind(field: &Field<'_>) -> Option<Kind> {
    if let Some(int) = field.type_as_int() {
        return match (int.bitWidth(), int.is_signed()) {
            (64, true) => Some(Kind::I64),
            (8, true) => Some(Kind::I8),
            (8, false) => Some(Kind::U8),
            (16, false) => Some(Kind::U16),
            (32, false) => Some(Kind::U32),
            _ => None,
        };
    }
    match field.type_as_floating_point()?.precision() {
        Precision::HALF => Some(Kind::F16),
        Precision::SINGLE => Some(Kind::F32),
        Precision::DOUBLE => Some(Kind::F64),
        _ => None,
    }
}
