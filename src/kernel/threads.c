/* Threads over samples, and which variant of the kernel this processor can run. */
#include "kernel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { MOST_THREADS = 64 };

typedef struct {
    atomic_long next;
    long count;
    Work *work;
    void *context;
} Queue;

typedef struct {
    Queue *queue;
    void *memory;
} Worker;

static void *run(void *argument)
{
    Worker *worker = argument;
    Queue *queue = worker->queue;
    for (long i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;)
        queue->work(queue->context, i, worker->memory);
    return NULL;
}

int parallel_for(long count, int threads, size_t bytes, Work *work, void *context)
{
    Queue queue = {.count = count, .work = work, .context = context};
    pthread_t thread[MOST_THREADS];
    Worker worker[MOST_THREADS];
    if (threads > count)
        threads = (int)count;
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    size_t each = (bytes + 127) / 64 * 64; /* no two threads share a cache line */
    char *memory = aligned_alloc(64, each * (size_t)threads);
    if (!memory)
        return -1;
    atomic_init(&queue.next, 0);
    int started = 1;
    for (int t = 0; t < threads; t++)
        worker[t] = (Worker){&queue, memory + each * (size_t)t};
    while (started < threads && !pthread_create(&thread[started], NULL, run, &worker[started]))
        started++;
    run(&worker[0]); /* this thread works too, and does all if no other could be had */
    while (started-- > 1)
        pthread_join(thread[started], NULL);
    free(memory);
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
