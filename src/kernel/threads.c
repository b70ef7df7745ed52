/* Threads over samples, and which variant of the kernel this processor can run. */
#include "kernel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { MOST_THREADS = 64 };

typedef struct {
    atomic_long next, started; /* samples and threads */
    long count;
    Work *work;
    const void *context;
    char *memory;
    size_t each; /* bytes of a thread */
} Queue;

static void *run(void *argument)
{
    Queue *queue = argument;
    char *memory = queue->memory + queue->each * (size_t)atomic_fetch_add(&queue->started, 1);
    for (long i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;)
        queue->work(queue->context, i, &(Arena){memory, 0});
    return NULL;
}

int parallel_for(long count, long threads, Work *work, const void *context)
{
    Queue queue = {.count = count, .work = work, .context = context};
    pthread_t other[MOST_THREADS];
    Arena needed = {NULL, 0};
    long others = 0;
    threads = threads < count ? threads : count;
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    work(context, 0, &needed);
    queue.each = needed.used + 64; /* no two threads share a cache line */
    queue.memory = aligned_alloc(64, queue.each * (size_t)threads);
    if (!queue.memory)
        return -1;
    while (others < threads - 1 && !pthread_create(&other[others], NULL, run, &queue))
        others++;
    run(&queue); /* this thread works too, and does all if no other could be had */
    while (others > 0)
        pthread_join(other[--others], NULL);
    free(queue.memory);
    return 0;
}

/* 0 for the baseline, 1 for AVX2 with FMA, 2 for AVX-512. */
EXPORT int kernel_level(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl");
    return avx512 ? 2 : avx2 ? 1 : 0;
#else
    return 0;
#endif
}

/* Asked for before anything else is called; see kernel.h. */
EXPORT int kernel_interface(void) { return INTERFACE; }
