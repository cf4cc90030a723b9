//! The descriptions in the file: made for given columns, and read with distrust.
//!
//! Both directions meet in [`Layout`]: the one placing of buffers that belongs to given rows and
//! columns. The writer follows it; the reader computes it again from what the file claims and
//! compares. Overlapping, reordered, misaligned or oversized buffers need no rules of their own.

use std::collections::HashSet;
use std::ops::Range;

use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::DictionaryTracker;
use arrow_ipc::{
    Block, Buffer, DictionaryBatch, DictionaryBatchArgs, DictionaryKind, Endianness, Field,
    FieldNode, Footer, FooterArgs, Int, KeyValue, KeyValueArgs, Message, MessageArgs,
    MessageHeader, MetadataVersion, RecordBatch, RecordBatchArgs, Type, root_as_footer_with_opts,
    root_as_message_with_opts,
};
use arrow_schema::Schema;
use flatbuffers::{
    FlatBufferBuilder, ForwardsUOffset, InvalidFlatbuffer, UnionWIPOffset, Vector, VerifierOptions,
    WIPOffset,
};

use super::map::Map;
use super::{ALIGN, BLOCK, Form, Shape, from_hex, to_hex};
use crate::error::{Error, Result};

/// The version of the layout that `mod.rs` describes.
const FORMAT: &str = "2";
/// An older one that is read as well: it is what the present one is without arrays.
const PLAIN_FORMAT: &str = "1";
/// How the file begins and, less the zeros, ends.
const MAGIC: [u8; 8] = *b"ARROW1\0\0";
/// The footer's length and the magic bytes after it.
const TAIL: usize = 4 + 6;
/// What stands before each message's length.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What a reader of the stream format takes for the end: a message of no length.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// The footer's own checksum, by which a file of ours is known.
const SEAL: &str = "omendb.seal";
/// The footer's end before it is sealed: the last string, its terminator, and padding.
const UNSEALED: [u8; 12] = *b"00000000\0\0\0\0";

type Pairs<'a> = Vector<'a, ForwardsUOffset<KeyValue<'a>>>;

/// Where everything lies in the body of a batch, for given rows and columns.
pub(super) struct Layout {
    nodes: Vec<FieldNode>,
    buffers: Vec<Buffer>,
    /// The column of each buffer that is there, and its bytes, counted from the body's start.
    pub(super) data: Vec<(usize, Range<usize>)>,
    /// Bytes of the body.
    pub(super) body: usize,
}

impl Layout {
    /// None if the numbers are too large for any file.
    pub(super) fn new(rows: usize, shapes: &[Shape]) -> Option<Self> {
        let mut layout = Self { nodes: vec![], buffers: vec![], data: vec![], body: 0 };
        for (column, shape) in shapes.iter().enumerate() {
            let mut node = |values: usize, nulls: usize| {
                layout.nodes.push(FieldNode::new(int(values)?, int(nulls)?));
                Some(())
            };
            if shape.form == Form::Nothing {
                node(rows, rows)?;
                continue;
            }
            node(rows, shape.nulls)?;
            let values = match shape.form {
                Form::List(width, _) => rows.checked_mul(i32::try_from(width).ok()? as usize)?,
                _ => rows,
            };
            if shape.nulls > rows {
                return None;
            } else if shape.nulls > 0 {
                layout.place(column, rows.div_ceil(8))?;
            } else {
                layout.skip()?;
            }
            match shape.form {
                Form::Nothing => {}
                Form::Bits => layout.place(column, rows.div_ceil(8))?,
                Form::Fixed(size) => layout.place(column, rows.checked_mul(size)?)?,
                Form::Variable(size) => {
                    layout.place(column, rows.checked_add(1)?.checked_mul(size)?)?;
                    layout.place(column, shape.bytes)?;
                }
                Form::List(_, kind) => {
                    layout.nodes.push(FieldNode::new(int(values)?, 0));
                    layout.skip()?;
                    layout.place(column, values.checked_mul(kind.size())?)?;
                }
            }
        }
        int(rows)?;
        int(layout.body)?;
        Some(layout)
    }

    /// A buffer of no length says that no value is null.
    fn skip(&mut self) -> Option<()> {
        self.buffers.push(Buffer::new(int(self.body)?, 0));
        Some(())
    }

    fn place(&mut self, column: usize, bytes: usize) -> Option<()> {
        let (start, end) = (self.body, self.body.checked_add(bytes)?);
        self.buffers.push(Buffer::new(int(start)?, int(bytes)?));
        self.data.push((column, start..end));
        self.body = end.checked_next_multiple_of(ALIGN)?;
        Some(())
    }
}

fn int(x: usize) -> Option<i64> {
    i64::try_from(x).ok()
}

/// A dictionary's values, or all columns: what stands before its body, and what that is.
pub(super) struct Batch {
    pub(super) head: Vec<u8>,
    /// The bytes of its message, with which the head ends.
    message: usize,
    pub(super) layout: Layout,
}

/// Describes dictionaries and columns, before their values are written.
///
/// Each table is a number of rows and the columns that have so many; those of `schema` come last,
/// its dictionaries, of one column each, before.
///
/// # Errors
///
/// `InvalidParameter` if the descriptions outgrow what Arrow allows.
pub(super) fn batches(tables: &[(usize, Vec<Shape>)], schema: &Schema) -> Result<Vec<Batch>> {
    let mut head = MAGIC.to_vec();
    let mut builder = FlatBufferBuilder::new();
    let header = encode(&mut builder, schema).as_union_value();
    push_message(&mut head, builder, MessageHeader::Schema, header, 0, 8)?;

    let mut batches = Vec::with_capacity(tables.len());
    for (number, (rows, shapes)) in tables.iter().enumerate() {
        let layout = Layout::new(*rows, shapes).ok_or_else(|| {
            Error::invalid(format!("a file cannot hold {rows} rows of this width"))
        })?;
        let mut builder = FlatBufferBuilder::new();
        let nodes = Some(builder.create_vector(&layout.nodes));
        let buffers = Some(builder.create_vector(&layout.buffers));
        let length = *rows as i64;
        let args = RecordBatchArgs { length, nodes, buffers, ..Default::default() };
        let batch = RecordBatch::create(&mut builder, &args);
        let (kind, header) = if number + 1 == tables.len() {
            (MessageHeader::RecordBatch, batch.as_union_value())
        } else {
            let args = DictionaryBatchArgs { id: number as i64, data: Some(batch), isDelta: false };
            let batch = DictionaryBatch::create(&mut builder, &args);
            (MessageHeader::DictionaryBatch, batch.as_union_value())
        };
        let start = head.len();
        push_message(&mut head, builder, kind, header, layout.body as i64, ALIGN)?;
        batches.push(Batch {
            message: head.len() - start,
            head: std::mem::take(&mut head),
            layout,
        });
    }
    Ok(batches)
}

fn encode<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    schema: &Schema,
) -> WIPOffset<arrow_ipc::Schema<'a>> {
    let mut tracker = DictionaryTracker::new(true); // it numbers dictionaries from 0
    let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker);
    encoder.schema_to_fb_offset(builder, schema)
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
/// `InvalidParameter` as for [`batches`].
pub(super) fn tail(batches: &[Batch], schema: &Schema, checksums: &[u32]) -> Result<Vec<u8>> {
    let (mut blocks, mut described, mut end) = (Vec::new(), crc32fast::Hasher::new(), 0);
    for Batch { head, message, layout } in batches {
        let at = end + head.len() - message;
        // A message's length fitted.
        blocks.push(Block::new(at as i64, *message as i32, layout.body as i64));
        described.update(head);
        end += head.len() + layout.body;
    }
    let mut builder = FlatBufferBuilder::new();
    // A flatbuffer grows from its end: the string that is made first comes last.
    let unsealed = builder.create_string("00000000");
    let seal = pair(&mut builder, SEAL, unsealed);
    let checksums = to_hex(checksums.iter().flat_map(|checksum| checksum.to_le_bytes()));
    let described = to_hex(described.finalize().to_le_bytes());
    let mut entries = Vec::new();
    for (key, value) in [("format", FORMAT), ("head", &described), ("blocks", &checksums)] {
        let value = builder.create_string(value);
        entries.push(pair(&mut builder, &format!("omendb.{key}"), value));
    }
    entries.push(seal);
    let entries = builder.create_vector(&entries);
    let schema = encode(&mut builder, schema);
    let dictionaries = blocks.len() - 1;
    let args = FooterArgs {
        version: MetadataVersion::V5,
        schema: Some(schema),
        dictionaries: Some(builder.create_vector(&blocks[..dictionaries])),
        recordBatches: Some(builder.create_vector(&blocks[dictionaries..])),
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

/// What a file describes, once its description is known to be the only one possible.
pub(super) struct Parts {
    pub(super) rows: usize,
    /// The number of values of each dictionary.
    pub(super) dictionaries: Vec<usize>,
    /// The dictionaries, in the order of the columns that they belong to, then the columns.
    pub(super) shapes: Vec<Shape>,
    pub(super) metadata: Vec<(String, String)>,
    /// Every buffer in the order of the file: the number of its shape, and its bytes in the file.
    pub(super) buffers: Vec<(usize, Range<usize>)>,
    /// One for each block of each buffer.
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
        if bytes.windows(SEAL.len()).any(|part| part == SEAL.as_bytes()) {
            "its footer does not match the checksum that omendb has put there"
        } else {
            "omendb has not written it, or another program has written it anew: read it with pyarrow, \
             and pass the table to Index.from_frame"
        },
    )?;

    let footer = root_as_footer_with_opts(&limits(bytes.len()), &bytes)
        .map_err(|error| format!("its footer: {}", first_line(&error)))?;
    let entries = pairs(footer.custom_metadata());
    let entry = |key: &str| {
        let entry = entries.iter().find(|(k, _)| *k == key);
        entry.map(|(_, value)| *value).ok_or_else(|| format!("its footer has no {key}"))
    };
    let format = entry("omendb.format")?;
    if format != FORMAT && format != PLAIN_FORMAT {
        let format = shown(format);
        return Err(format!(
            "its format is {format}, and this omendb reads formats up to {FORMAT}"
        ));
    }
    ensure(footer.version() == MetadataVersion::V5, "its footer is not of Arrow's version 5")?;
    let batches = footer.recordBatches().filter(|batches| batches.len() == 1);
    let batches = batches.ok_or("it has not one record batch")?;
    let mut places = Vec::new();
    let (mut end, mut described) = (0, crc32fast::Hasher::new());
    for block in footer.dictionaries().iter().flat_map(Vector::iter).chain(batches.iter()) {
        let place = Place::of(block).ok_or("its record batch has an impossible place")?;
        let right =
            if end == 0 { place.message.start >= MAGIC.len() } else { place.message.start == end };
        ensure(right && place.end <= starts, "its record batch does not fill the file")?;
        map.hash(end..place.message.end, &mut described);
        end = place.end;
        places.push(place);
    }
    ensure(end.checked_add(END.len()) == Some(starts), "its record batch does not fill the file")?;
    ensure(map.read(end..starts) == END, "the mark between its columns and its footer is wrong")?;
    ensure(
        is_checksum(entry("omendb.head")?, described.finalize()),
        "its head does not match its checksum",
    )?;

    let schema = footer.schema().ok_or("it has no schema")?;
    ensure(schema.endianness() == Endianness::Little, "it is big-endian")?;
    let columns = shapes(&schema)?;
    let mut tables: Vec<Vec<Shape>> =
        columns.iter().filter_map(Shape::dictionary).map(|shape| vec![shape]).collect();
    tables.push(columns);
    ensure(tables.len() == places.len(), "it has not one dictionary for each column of such")?;
    let (mut counts, mut buffers) = (Vec::new(), Vec::new());
    let mut before = 0;
    for (number, (table, place)) in tables.iter_mut().zip(&places).enumerate() {
        let dictionary = (number + 1 < places.len()).then_some(number as i64);
        let (rows, layout) = read_batch(map, place, dictionary, table)?;
        counts.push(rows);
        let data = layout.data.into_iter();
        let origin = place.message.end;
        buffers.extend(
            data.map(|(shape, data)| (before + shape, origin + data.start..origin + data.end)),
        );
        before += table.len();
    }
    let rows = counts.pop().unwrap_or_default();
    let blocks = buffers.iter().map(|(_, bytes)| bytes.len().div_ceil(BLOCK)).sum::<usize>();
    let checksums = entry("omendb.blocks")?;
    let checksums = from_hex(checksums).filter(|bytes| bytes.len() == blocks * 4);
    let checksums = checksums.ok_or("it has not one checksum for each block")?;
    let checksums = checksums.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
    Ok(Parts {
        rows,
        dictionaries: counts,
        shapes: tables.into_iter().flatten().collect(),
        metadata: pairs(schema.custom_metadata())
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        buffers,
        checksums: checksums.collect(),
    })
}

fn pairs(entries: Option<Pairs<'_>>) -> Vec<(&str, &str)> {
    let entries = entries.iter().flat_map(Vector::iter);
    entries.filter_map(|entry| Some((entry.key()?, entry.value()?))).collect()
}

/// Where a batch is.
struct Place {
    message: Range<usize>,
    /// Where its body ends, which begins where its message ends.
    end: usize,
}

impl Place {
    fn of(block: &Block) -> Option<Self> {
        let start = usize::try_from(block.offset()).ok().filter(|at| at.is_multiple_of(8))?;
        let origin = start.checked_add(usize::try_from(block.metaDataLength()).ok()?)?;
        let end = origin.checked_add(usize::try_from(block.bodyLength()).ok()?)?;
        origin.is_multiple_of(ALIGN).then_some(Self { message: start..origin, end })
    }
}

/// The rows of a batch whose description is that of these columns, and where those are. The
/// shapes learn what only the description says.
fn read_batch(
    map: &Map,
    place: &Place,
    dictionary: Option<i64>,
    shapes: &mut [Shape],
) -> Parsed<(usize, Layout)> {
    let body = place.end - place.message.end;
    let message = map.read(place.message.clone());
    let message = message.strip_prefix(&CONTINUATION);
    let message = message.and_then(|message| message.split_first_chunk::<4>());
    let (length, message) = message.ok_or("its record batch has no message")?;
    ensure(
        usize::try_from(i32::from_le_bytes(*length)) == Ok(message.len()),
        "its record batch's message has another length than the footer says",
    )?;
    let message = root_as_message_with_opts(&limits(message.len()), message)
        .map_err(|error| format!("its record batch's message: {}", first_line(&error)))?;
    let batch = match dictionary {
        None => message.header_as_record_batch().ok_or("its message is not a record batch")?,
        Some(id) => message
            .header_as_dictionary_batch()
            .filter(|dictionary| dictionary.id() == id && !dictionary.isDelta())
            .and_then(|dictionary| dictionary.data())
            .ok_or("its message is not the dictionary that is due")?,
    };
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
    let (mut node, mut buffer) = (0, 0);
    for shape in &mut *shapes {
        let (nodes, buffers) = match shape.form {
            Form::Nothing => (1, 0),
            Form::Bits | Form::Fixed(_) => (1, 2),
            Form::Variable(_) => (1, 3),
            Form::List(..) => (2, 3),
        };
        // A number that makes no sense, or is not there, is found out by the comparison below.
        if shape.field.is_nullable() && buffers > 0 && nodes == 1 {
            let node = batch.nodes().filter(|all| node < all.len()).map(|all| all.get(node));
            let nulls = node.and_then(|node| usize::try_from(node.null_count()).ok());
            shape.nulls = nulls.unwrap_or_default();
        }
        if matches!(shape.form, Form::Variable(_)) {
            let last = buffer + buffers - 1;
            let bytes = batch.buffers().filter(|all| last < all.len()).map(|all| all.get(last));
            let bytes = bytes.and_then(|bytes| usize::try_from(bytes.length()).ok());
            shape.bytes = bytes.unwrap_or_default();
        }
        node += nodes;
        buffer += buffers;
    }
    let layout = Layout::new(rows, shapes).ok_or("its number of rows is impossible")?;
    let nodes = batch.nodes().is_some_and(|nodes| nodes.iter().eq(layout.nodes.iter()));
    let buffers = batch.buffers().is_some_and(|found| found.iter().eq(layout.buffers.iter()));
    ensure(nodes && buffers, "its columns are not where those of its rows would be")?;
    ensure(layout.body == body, "its columns do not fill its record batch")?;
    Ok((rows, layout))
}

/// The columns of a schema, if all are such as this crate writes.
fn shapes(schema: &arrow_ipc::Schema<'_>) -> Parsed<Vec<Shape>> {
    // Without one, nothing would stand behind the number of rows.
    let fields = schema.fields().filter(|fields| !fields.is_empty()).ok_or("it has no columns")?;
    let mut names = HashSet::with_capacity(fields.len());
    let mut shapes = Vec::with_capacity(fields.len());
    let mut dictionaries = 0;
    for field in fields {
        let name = field.name().ok_or("a column has no name")?;
        if !names.insert(name) {
            return Err(format!("it has two columns named {}", shown(name)));
        }
        let refuse = || format!("column {} is of a type that omendb does not write", shown(name));
        if let Some(dictionary) = field.dictionary() {
            ensure(dictionary.id() == dictionaries, "its dictionaries are in another order")?;
            dictionaries += 1;
        }
        // Arrow's conversion takes only what it knows, and panics otherwise.
        let known = is_known(&field).then(|| arrow_schema::Field::from(field));
        shapes.push(known.and_then(Shape::new).ok_or_else(refuse)?);
    }
    Ok(shapes)
}

/// Whether a field is of a type that this crate writes and has all that belongs to it.
fn is_known(field: &Field<'_>) -> bool {
    let is_int = |int: Int<'_>| matches!(int.bitWidth(), 8 | 16 | 32 | 64);
    let children = field.children().map_or(0, |children| children.len());
    let item = field.children().filter(|_| children == 1).map(|children| children.get(0));
    // What the conversion looks for in vain is None here.
    let known = match field.type_type() {
        Type::Null
        | Type::Bool
        | Type::Utf8
        | Type::LargeUtf8
        | Type::Binary
        | Type::LargeBinary => Some(true),
        Type::Int => field.type_as_int().map(is_int),
        Type::FloatingPoint => {
            field.type_as_floating_point().map(|float| (0..3).contains(&float.precision().0))
        }
        Type::FixedSizeBinary => field.type_as_fixed_size_binary().map(|_| true),
        Type::Date => field.type_as_date().map(|date| (0..2).contains(&date.unit().0)),
        Type::Time => field
            .type_as_time()
            .map(|time| matches!((time.bitWidth(), time.unit().0), (32, 0 | 1) | (64, 2 | 3))),
        Type::Timestamp => field.type_as_timestamp().map(|time| (0..4).contains(&time.unit().0)),
        Type::Duration => field.type_as_duration().map(|time| (0..4).contains(&time.unit().0)),
        Type::Decimal => field.type_as_decimal().map(|decimal| {
            decimal.bitWidth() == 128
                && u8::try_from(decimal.precision()).is_ok()
                && i8::try_from(decimal.scale()).is_ok()
        }),
        Type::FixedSizeList => field.type_as_fixed_size_list().zip(item).map(|(_, item)| {
            item.type_type() != Type::FixedSizeList
                && item.dictionary().is_none()
                && is_known(&item)
        }),
        _ => None,
    };
    let leaf = field.type_type() != Type::FixedSizeList;
    let key = field.dictionary().is_none_or(|dictionary| {
        dictionary.dictionaryKind() == DictionaryKind::DenseArray
            && dictionary.indexType().is_some_and(is_int)
    });
    known == Some(true) && key && (!leaf || children == 0)
}
