/* omendb: nearest neighbours, exact at matrix-product speed or by a graph whose recall is measured.
 *
 * Made from src/capi.rs by cbindgen; edit that. Conventions of all functions:
 *
 * - A function that can fail returns an omen_status: OMEN_OK, or why not. omen_last_error() then has a
 *   sentence about it, for this thread, until its next call.
 * - Nothing is written to the caller's memory, and no index is changed, by a call that fails.
 * - The index comes first. Where it is const, the call does not change it.
 * - An index is a handle: NULL, one that was freed, and a pointer to something else are found out and
 *   are OMEN_INVALID_HANDLE.
 * - Any thread may call any function at any time, on the same index too; a thread that frees an index
 *   need not wait for the others.
 * - A callback returns: it throws nothing and does not jump out. It may call any function, but no edit or
 *   omen_save of an index from the cancel callback of one of these on the same index; and two threads
 *   that edit two indexes, each in the callback of an edit of the other's, wait for each other for ever.
 *   What a cancel callback calls asks none itself.
 * - Memory is the caller's: arrays that come are read during the call (omen_borrow says otherwise of
 *   its own), results go to where the caller points, and there is nothing to free but indexes.
 * - Arrays have the length that is said, rows one after another, row_stride bytes apart where that is
 *   not 0; vectors may lie at any address, all other arrays at one that suits their type. A length of
 *   0 allows NULL. Results do not overlap each other or what comes.
 * - Structs of options begin with their size, which OMEN_..._INIT sets; NULL stands for such a one. So a
 *   program that was compiled with this header works with later versions of the library.
 * - No function installs a signal handler, calls exit(), or lets an exception or a panic through. Where
 *   the system refuses memory, the process is aborted.
 * - After fork(), parent and child may both go on, if no other thread was within a function at that
 *   moment: an edit under way elsewhere never ends in the child, which can only search that index then, and
 *   a call that opens or frees an index may leave all handles locked.
 */

#ifndef OMENDB_H
#define OMENDB_H

#include <stdint.h>

#define OMEN_OPTIONS_INIT {sizeof(omen_options), 0, OMEN_EUCLIDEAN, OMEN_DEFAULT}
#define OMEN_SEARCH_OPTIONS_INIT \
    {sizeof(omen_search_options), 0, 0, 0, 0, 0, 0, 0, 0, OMEN_AUTO, OMEN_DEFAULT}
#define OMEN_GRAPH_OPTIONS_INIT {sizeof(omen_graph_options), 0}
#define OMEN_RECALL_REPORT_INIT {sizeof(omen_recall_report), 0, 0, 0, 0, 0, 0, 0}
#define OMEN_STATISTICS_INIT {sizeof(omen_statistics), 0, 0, 0, 0, 0, 0, 0, 0, 0}


/**
 * The version of this interface: see omen_abi_version.
 */
#define OMEN_ABI_VERSION 1

/**
 * An index. What it points to is omendb's alone.
 */
typedef struct omen_index omen_index;

/**
 * How a call ended: `OMEN_OK`, or why not. See omen_last_error for a sentence about it.
 */
typedef int32_t omen_status;

/**
 * A distance between two vectors; smaller is closer.
 */
typedef int32_t omen_metric;

/**
 * The type of the numbers of vectors.
 */
typedef int32_t omen_dtype;

/**
 * What an index is made for. Begin with OMEN_OPTIONS_INIT.
 */
typedef struct {
    /**
     * sizeof(omen_options), set by OMEN_OPTIONS_INIT.
     */
    uint64_t size;
    /**
     * Bytes from one row to the next in arrays that come to omen_add, omen_borrow and omen_update;
     * 0 where rows follow each other without gaps.
     */
    uint64_t row_stride;
    /**
     * The distance; OMEN_EUCLIDEAN at first.
     */
    omen_metric metric;
    /**
     * The type of the rows' numbers.
     */
    omen_dtype dtype;
} omen_options;

/**
 * How a search finds its answers.
 */
typedef int32_t omen_method;

/**
 * How to search. Begin with OMEN_SEARCH_OPTIONS_INIT, which asks for all rows by the cheaper way.
 */
typedef struct {
    /**
     * sizeof(omen_search_options), set by OMEN_SEARCH_OPTIONS_INIT.
     */
    uint64_t size;
    /**
     * About the width of the walk's beam: wider finds more and takes longer. 0: what omen_tune found,
     * and 1.5 k at least.
     */
    uint64_t effort;
    /**
     * Threads of this call; 0: as omen_set_threads said.
     */
    uint64_t threads;
    /**
     * Bytes from one query to the next; 0 where they follow each other without gaps.
     */
    uint64_t row_stride;
    /**
     * Unless NULL, one bit for each row in the order of omen_ids, the lowest bit of a byte first:
     * only rows whose bit is set may answer.
     */
    const uint8_t *filter_bits;
    /**
     * Bytes of filter_bits: an eighth of omen_len, rounded up.
     */
    uint64_t n_filter_bytes;
    /**
     * Unless NULL, the ids of the rows that may answer. Not together with filter_bits.
     */
    const int64_t *filter_ids;
    /**
     * The number of filter_ids; 0 allows no row.
     */
    uint64_t n_filter_ids;
    /**
     * Unless NULL, gets for each query 1 where the answers are proven to be the exact ones, else 0.
     */
    uint8_t *exact;
    /**
     * Which way to search; a walk through the graph is for omen_search alone.
     */
    omen_method method;
    /**
     * The type of the queries' numbers.
     */
    omen_dtype dtype;
} omen_search_options;

/**
 * Gets the answers of one query of omen_search_radius, nearest first, in arrays that are gone when
 * it returns. Not 0 means: enough; later queries are not told.
 */
typedef int32_t (*omen_found)(void *context,
                              uint64_t query,
                              uint64_t count,
                              const int64_t *ids,
                              const double *distances);

/**
 * How to build a graph. Begin with OMEN_GRAPH_OPTIONS_INIT.
 */
typedef struct {
    /**
     * sizeof(omen_graph_options), set by OMEN_GRAPH_OPTIONS_INIT.
     */
    uint64_t size;
    /**
     * Chooses the random rows that building starts from. The same seed gives the same graph.
     */
    uint64_t seed;
} omen_graph_options;

/**
 * Recall and speed of one width of the beam.
 */
typedef struct {
    /**
     * The width.
     */
    uint64_t effort;
    /**
     * The mean share of the true answers that were found.
     */
    double recall;
    /**
     * The speed of one call with all queries.
     */
    double queries_per_second;
} omen_recall_row;

/**
 * What omen_tune measured. Begin with OMEN_RECALL_REPORT_INIT.
 */
typedef struct {
    /**
     * sizeof(omen_recall_report), set by OMEN_RECALL_REPORT_INIT.
     */
    uint64_t size;
    /**
     * The mean recall of the half of the queries that did not choose the effort.
     */
    double recall;
    /**
     * A bound that the true mean is above, 95 times in 100.
     */
    double lower_bound;
    /**
     * The width that was chosen, and is the index's own now.
     */
    uint64_t effort;
    /**
     * The number of queries.
     */
    uint64_t queries;
    /**
     * Set by the caller: room for rows about each width that was tried, or NULL.
     */
    omen_recall_row *table;
    /**
     * Set by the caller: the number of rows there is room for.
     */
    uint64_t table_capacity;
    /**
     * Rows that there are; no more than table_capacity were written.
     */
    uint64_t table_len;
} omen_recall_report;

/**
 * What omen_stats tells. Begin with OMEN_STATISTICS_INIT.
 */
typedef struct {
    /**
     * sizeof(omen_statistics), set by OMEN_STATISTICS_INIT.
     */
    uint64_t size;
    /**
     * The number of rows.
     */
    uint64_t len;
    /**
     * The numbers of a row.
     */
    uint64_t dim;
    /**
     * Bytes that the index holds beside the rows' own.
     */
    uint64_t nbytes;
    /**
     * Dimensions that are coded; 0 where rows have no codes.
     */
    uint64_t code_width;
    /**
     * Width of a walk's beam where a search names none.
     */
    uint64_t effort;
    /**
     * The distance.
     */
    omen_metric metric;
    /**
     * The type of the rows' numbers.
     */
    omen_dtype dtype;
    /**
     * 1 where omen_build_graph was called, else 0.
     */
    int32_t has_graph;
    /**
     * 0.
     */
    int32_t reserved;
} omen_statistics;

/**
 * Asked about every 25 ms during a long call, on the thread that made it, how much is done of the
 * total, and while the call waits for an edit of another thread. Not 0 stops the call.
 */
typedef int32_t (*omen_cancel)(void *context, uint64_t done, uint64_t total);

/**
 * Done.
 */
#define OMEN_OK 0

/**
 * NULL where an index is expected, or an index that was freed, or something else.
 */
#define OMEN_INVALID_HANDLE 1

/**
 * An argument outside its range.
 */
#define OMEN_INVALID_ARGUMENT 2

/**
 * NaN, an infinity, or a number beyond 1e150 among vectors or queries.
 */
#define OMEN_BAD_NUMBER 3

/**
 * A file that the system does not read or write.
 */
#define OMEN_FILE 4

/**
 * A file that is not as it was written, or was never written by omendb.
 */
#define OMEN_DAMAGED 5

/**
 * The cancel callback asked to stop.
 */
#define OMEN_CANCELLED 6

/**
 * A fault of omendb; please report it. The index is as it was.
 */
#define OMEN_FAULT 7

/**
 * The root of the sum of squared differences.
 */
#define OMEN_EUCLIDEAN 0

/**
 * The sum of squared differences.
 */
#define OMEN_SQEUCLIDEAN 1

/**
 * 1 - cosine, between 0 and 2; 1 when either vector is zero.
 */
#define OMEN_COSINE 2

/**
 * Minus the inner product.
 */
#define OMEN_INNER_PRODUCT 3

/**
 * The sum of absolute differences.
 */
#define OMEN_MANHATTAN 4

/**
 * The largest absolute difference.
 */
#define OMEN_CHEBYSHEV 5

/**
 * For a new index OMEN_F32; for queries the type of the index's rows.
 */
#define OMEN_DEFAULT 0

/**
 * float
 */
#define OMEN_F32 1

/**
 * double
 */
#define OMEN_F64 2

/**
 * IEEE 754 half precision
 */
#define OMEN_F16 3

/**
 * bfloat16, the upper half of a float
 */
#define OMEN_BF16 4

/**
 * int8_t
 */
#define OMEN_I8 5

/**
 * uint8_t
 */
#define OMEN_U8 6

/**
 * Exactly or by the graph, whichever costs less.
 */
#define OMEN_AUTO 0

/**
 * By looking at every row.
 */
#define OMEN_EXACT 1

/**
 * By walking through the graph, which must have been built.
 */
#define OMEN_GRAPH 2

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes an empty index for vectors of dim numbers, and writes its handle to *index. options may be
 * NULL. Threads: any.
 */
omen_status omen_create(uint64_t dim, const omen_options *options, omen_index **index);

/**
 * Ends an index. Calls that other threads are making finish first in peace, but borrowed memory
 * must stay until they have. NULL is nothing to free. Threads: any.
 */
omen_status omen_free(omen_index *index);

/**
 * Adds n vectors, which are copied. ids has one for each, all new, or is NULL for the next free
 * ones: 0, 1, 2 and so on. Threads: any, also during searches; edits wait for each other.
 */
omen_status omen_add(omen_index *index, const void *vectors, uint64_t n, const int64_t *ids);

/**
 * As omen_add, but the vectors are used where they lie: they must stay there, unchanged, until
 * the index is freed, and until the calls that were running then have returned. Threads: as
 * omen_add.
 */
omen_status omen_borrow(omen_index *index, const void *vectors, uint64_t n, const int64_t *ids);

/**
 * Removes the rows of n ids, each of which must be there, and once. Threads: as omen_add.
 */
omen_status omen_remove(omen_index *index, const int64_t *ids, uint64_t n);

/**
 * Gives the rows of n ids, each of which must be there, and once, new vectors, which are copied.
 * Borrowed memory is not written to. Threads: as omen_add.
 */
omen_status omen_update(omen_index *index, const int64_t *ids, const void *vectors, uint64_t n);

/**
 * Finds the k rows nearest to each of n_queries, nearest first, equal distances by row. Query i
 * gets counts[i] answers, min(k, rows that may answer), in ids[i * k] and distances[i * k] and
 * what follows; the rest of its k places is left as it was. options may be NULL. Threads: any,
 * also while others search or edit: a search sees the rows before an edit or after it.
 */
omen_status omen_search(const omen_index *index,
                        const void *queries,
                        uint64_t n_queries,
                        uint64_t k,
                        const omen_search_options *options,
                        int64_t *ids,
                        double *distances,
                        uint64_t *counts);

/**
 * Finds every row at most radius from each of n_queries and tells them to found, query by query,
 * on this thread, when all are answered. options may be NULL; whatever its method and effort, the
 * answers are exact. Threads: as omen_search.
 */
omen_status omen_search_radius(const omen_index *index,
                               const void *queries,
                               uint64_t n_queries,
                               double radius,
                               const omen_search_options *options,
                               omen_found found,
                               void *context);

/**
 * Links near rows, so that searches need not look at all of them; edits keep the links up to date.
 * Not for OMEN_MANHATTAN and OMEN_CHEBYSHEV. options may be NULL. Threads: as omen_add.
 */
omen_status omen_build_graph(omen_index *index, const omen_graph_options *options);

/**
 * Finds the effort that answers with this recall (above 0, up to 1) for k neighbours, compared with
 * exact answers, and makes it the index's own. Where queries is NULL and n_queries 0, points between rows are taken.
 * options (of which threads, row_stride and dtype count) and report may be NULL. Threads: as omen_add.
 */
omen_status omen_tune(omen_index *index,
                      double recall,
                      uint64_t k,
                      const void *queries,
                      uint64_t n_queries,
                      const omen_search_options *options,
                      omen_recall_report *report);

/**
 * Writes the index to a file, which replaces one that is there, or nothing on failure. Threads: any.
 */
omen_status omen_save(const omen_index *index,
                      const char *path);

/**
 * Opens a file that omen_save, or another face of omendb, wrote, and writes a handle to *index. The
 * file stays mapped: rows are read, and checked, when they are first needed, or all at once where
 * verify is not 0. Vectors and queries have the dtype of the file (omen_stats tells it) and no row_stride.
 * Whoever cuts the file short or writes into it meanwhile ends the process or changes answers; omen_save
 * replaces it, which does neither. Ids of another type and metadata, which files from Python may hold, are
 * left out: the ids are 0 to n - 1 then, and what omen_save writes has neither. Threads: any.
 */
omen_status omen_load(const char *path,
                      int32_t verify,
                      omen_index **index);

/**
 * Writes the number of rows to *len. Threads: any.
 */
omen_status omen_len(const omen_index *index, uint64_t *len);

/**
 * Writes the numbers of a vector to *dim. Threads: any.
 */
omen_status omen_dim(const omen_index *index, uint64_t *dim);

/**
 * Writes the ids of all rows, in the order that filter_bits is in, to ids, which has room for
 * capacity of them (as many as omen_len says, or more), and their number to *len. Threads: any.
 */
omen_status omen_ids(const omen_index *index, int64_t *ids, uint64_t capacity, uint64_t *len);

/**
 * Tells what the index is. Threads: any.
 */
omen_status omen_stats(const omen_index *index, omen_statistics *stats);

/**
 * Sets the threads of later calls, the calling one among them; 0 for one per processor, as at
 * first. Threads: any.
 */
omen_status omen_set_threads(omen_index *index, uint64_t threads);

/**
 * Sets what later calls ask whether to stop, and what they give it; NULL for nothing, as at first.
 * Several threads that call ask it at once. Threads: any.
 */
omen_status omen_set_cancel(omen_index *index, omen_cancel cancel, void *context);

/**
 * A sentence about why the last call of this thread that failed did so; empty if none has. It lives
 * until the thread's next call. Threads: any.
 */
const char *omen_last_error(void);

/**
 * The version of the library, as "1.2.3". Threads: any.
 */
const char *omen_version(void);

/**
 * The version of this interface, OMEN_ABI_VERSION of the header it was built with. It is counted up
 * when a program that was compiled before would go wrong. Threads: any.
 */
uint32_t omen_abi_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OMENDB_H */
