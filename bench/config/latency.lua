-- wrk's report as one line of JSON: what was done, what failed, and how long it took (microseconds).
done = function(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        'REPORT {"requests": %d, "bytes": %d, "microseconds": %d, '
            .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}, '
            .. '"p50": %d, "p99": %d, "p999": %d, "max": %d}\n',
        summary.requests, summary.bytes, summary.duration,
        errors.connect, errors.read, errors.write, errors.status, errors.timeout,
        latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
