//! What `where=` costs: a predicate read and evaluated on a table of 63,666 rows, one thread.
//!
//! `cargo bench --bench predicate --features table`. The table is as wide and as varied as the metadata of Debian's
//! packages: 57 sections, the largest of which holds a third of the rows, and a size for each. Every
//! predicate is measured on texts in each of Arrow's layouts; medians of the rounds in microseconds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringArray, StringViewArray,
};
use arrow_schema::{Field, Schema};
use omendb::measure;

const ROWS: usize = 63_666;
const SECTIONS: usize = 57;
const ROUNDS: usize = 201;

fn table(sections: ArrayRef, names: ArrayRef) -> RecordBatch {
    let sizes = (0..ROWS).map(|row| Some((row * 7919 % ROWS) as i64)).collect::<Int64Array>();
    let columns: [(&str, ArrayRef); 3] =
        [("section", sections), ("name", names), ("installed_size_kib", Arc::new(sizes))];
    let field =
        |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(schema), arrays).expect("columns of one length")
}

fn main() -> Result<(), omendb::Error> {
    let sections: Vec<String> = (0..ROWS)
        .map(|row| match row * 7907 % 3 {
            0 => "libdevel".to_owned(),
            _ if row * 31 % SECTIONS == 7 => "games".to_owned(),
            _ => format!("section-{}", row * 31 % SECTIONS),
        })
        .collect();
    let names: Vec<String> = (0..ROWS).map(|row| format!("lib{}-{row}", &sections[row])).collect();
    let mut codes = StringDictionaryBuilder::<Int32Type>::new();
    sections.iter().for_each(|section| codes.append_value(section));
    let (s, n) = (sections.iter(), names.iter());
    let layouts: [(&str, RecordBatch); 4] = [
        ("dictionary", table(Arc::new(codes.finish()), Arc::new(StringArray::from(names.clone())))),
        (
            "text",
            table(
                Arc::new(StringArray::from(sections.clone())),
                Arc::new(StringArray::from(names.clone())),
            ),
        ),
        (
            "large text",
            table(
                Arc::new(LargeStringArray::from(sections.clone())),
                Arc::new(LargeStringArray::from(names.clone())),
            ),
        ),
        (
            "text view",
            table(
                Arc::new(StringViewArray::from_iter_values(s)),
                Arc::new(StringViewArray::from_iter_values(n)),
            ),
        ),
    ];
    let many: Vec<String> =
        (0..10_000).map(|i| format!("installed_size_kib = {}", i * 3)).collect();
    let list: Vec<String> = (0..10_000).map(|i| format!("'lib{i}'")).collect();
    let there: Vec<String> = (0..1_000).map(|i| format!("'{}'", names[i * 63])).collect();
    let predicates = [
        "section == 'games' and installed_size_kib < 500".to_owned(),
        "installed_size_kib < 500 and section == 'games'".to_owned(),
        "section == 'games'".to_owned(),
        "section in ('games', 'libdevel')".to_owned(),
        "installed_size_kib < 500".to_owned(),
        "installed_size_kib between 500 and 1000".to_owned(),
        "name.str.startswith('libgames')".to_owned(),
        "name like '%games%'".to_owned(),
        "name ilike '%GAMES%'".to_owned(),
        "name ilike '%GAMES-_1%'".to_owned(),
        "section < name".to_owned(),
        format!("name in ({})", there.join(", ")),
        many.join(" or "),
        format!("name in ({})", list.join(", ")),
    ];
    print_row("predicate", layouts.iter().map(|(name, _)| (*name).to_owned()));
    for text in &predicates {
        let mut medians = vec![];
        for (_, batch) in &layouts {
            let rounds = if text.len() > 1000 { ROUNDS / 20 } else { ROUNDS };
            let mut times = vec![];
            for _ in 0..rounds {
                let start = Instant::now();
                black_box(measure::predicate(black_box(text), batch)?);
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            times.sort_unstable_by(f64::total_cmp);
            medians.push(format!("{:.0} ({:.0})", times[rounds / 2], times[0]));
        }
        let short: String = text.chars().take(50).collect();
        print_row(&short, medians.into_iter());
    }
    Ok(())
}

fn print_row(first: &str, rest: impl Iterator<Item = String>) {
    eprint!("{first:<52}");
    rest.for_each(|cell| eprint!("{cell:>16}"));
    eprintln!();
}
