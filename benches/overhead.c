/* What omen_search costs beside its arithmetic, from C: one row of 8 numbers, k = 1, one thread.
 *
 * make capi && cc -O2 benches/overhead.c -I.cache/capi/include -L.cache/capi/lib -lomendb -lm \
 *     -Wl,-rpath,$PWD/.cache/capi/lib -o .cache/overhead && .cache/overhead
 *
 * The bare distance and omen_search take turns; medians of the rounds. */

#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <omendb.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { DIM = 8, CALLS = 100000, ROUNDS = 21 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double bare(const volatile float *query, const volatile float *row) {
    double sum = 0;
    for (int j = 0; j < DIM; j++) sum += ((double)query[j] - row[j]) * ((double)query[j] - row[j]);
    return sqrt(sum);
}

static int ascending(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

int main(void) {
    float row[DIM] = {1, 2, 3, 4, 5, 6, 7, 8}, query[DIM] = {0};
    omen_index *index = NULL;
    if (omen_create(DIM, NULL, &index) || omen_add(index, row, 1, NULL) ||
        omen_set_threads(index, 1))
        return 1;
    double plain[ROUNDS], whole[ROUNDS], distance = 0;
    volatile double kept = 0;
    int64_t id;
    uint64_t count;
    for (int round = 0; round < ROUNDS; round++) {
        double start = now();
        for (int i = 0; i < CALLS; i++) kept = bare(query, row);
        plain[round] = (now() - start) / CALLS;
        start = now();
        for (int i = 0; i < CALLS; i++) {
            if (omen_search(index, query, 1, 1, NULL, &id, &distance, &count)) return 1;
        }
        whole[round] = (now() - start) / CALLS;
    }
    qsort(plain, ROUNDS, sizeof *plain, ascending);
    qsort(whole, ROUNDS, sizeof *whole, ascending);
    double overhead = whole[ROUNDS / 2] - plain[ROUNDS / 2];
    if (distance != kept) return 1;
    printf("bare %.1f ns; omen_search %.1f ns beside it (goal 100)\n", plain[ROUNDS / 2], overhead);
    return omen_free(index) != OMEN_OK;
}
