//go:build !race

package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkMillion holds a million sessions in one process (CARILLON_SESSIONS) and measures what the collector does to it
// under different settings, each for CARILLON_PHASE (30 s) under the same load: every session's heartbeats, a broadcast to
// all every three seconds, 200 unicasts and 500 reconnects a second. CARILLON_SETTINGS names the settings as GOGC or
// GOGC/limit in MiB: "100,50,100/1500". With "@2s" behind it there is a collection every two seconds too, so that enough
// pauses are seen; with an exclamation mark they follow each other without a break, which keeps all processors busy. It
// takes some minutes and needs 3 GB.
func BenchmarkMillion(b *testing.B) {
	n := sessions(b, 1_000_000)
	phase := 30 * time.Second
	if s := os.Getenv("CARILLON_PHASE"); s != "" {
		var err error
		if phase, err = time.ParseDuration(s); err != nil {
			b.Fatal(err)
		}
	}
	settings := "25,50,100,200,100!"
	if s := os.Getenv("CARILLON_SETTINGS"); s != "" {
		settings = s
	}
	c := crowdNode(b, n)
	began := time.Now()
	c.connect(b, n)
	b.Logf("%d sessions connected in %v, %d bytes of heap live", n, time.Since(began).Round(time.Second), liveHeap())
	for setting := range strings.SplitSeq(settings, ",") {
		setting, always := strings.CutSuffix(setting, "!")
		setting, pause, paced := strings.Cut(setting, "@")
		name := "gogc=" + strings.ReplaceAll(setting, "/", ",limit=")
		var every time.Duration
		switch {
		case always:
			name += ",always"
		case paced:
			name += ",every=" + pause
			var err error
			if every, err = time.ParseDuration(pause); err != nil || every <= 0 {
				b.Fatalf("%q is no time between two collections", pause)
			}
		}
		b.Run(name, func(b *testing.B) {
			gogc, limit := parseSetting(b, setting)
			defer debug.SetGCPercent(debug.SetGCPercent(gogc))
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(limit))
			for b.Loop() {
				if always || paced {
					defer collect(every)()
				}
				c.load(b, phase)
			}
		})
	}
	c.settle(b)
	if open, ended := c.g.room.Count(), c.ended.Load(); open != n || ended != 0 {
		b.Errorf("%d sessions are open and %d ended, want %d and none", open, ended, n)
	}
}

// collect collects every so often, until the function that it returns is called.
func collect(every time.Duration) (stop func()) {
	halt, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			began := time.Now()
			runtime.GC()
			select {
			case <-halt:
				return
			case <-time.After(every - time.Since(began)):
			}
		}
	}()
	return func() { close(halt); <-done }
}

func parseSetting(b *testing.B, s string) (gogc int, limit int64) {
	percent, mib, limited := strings.Cut(s, "/")
	gogc, err := strconv.Atoi(percent)
	if err != nil {
		b.Fatal(err)
	}
	limit = math.MaxInt64
	if limited {
		n, err := strconv.ParseInt(mib, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		limit = n << 20
	}
	return gogc, limit
}

// load runs the load for a while and reports what it did to the process.
func (c *crowd) load(b *testing.B, phase time.Duration) {
	debug.FreeOSMemory()
	api := newPublisher(b, c.g)
	c.leave.Store(int64(500 * crowdStep / time.Second))
	defer c.leave.Store(0)
	before := readRuntime()
	messages, pongs, welcomed := c.messages.Load(), c.pongs.Load(), c.welcomed.Load()
	peak := resident()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; time.Since(began) < phase; i++ {
		<-tick.C
		api.publish(b, fmt.Sprintf(`{"to":{"users":[%q]},"message":{"body":{"n":%d},"persistent":%t}}`, crowdUser(i*7919%c.next), i, i%2 == 0))
		if i%600 == 0 {
			api.publish(b, `{"to":{"everyone":true},"message":{"body":{"text":"to all"},"persistent":false}}`)
		}
		if i%100 == 0 {
			peak = max(peak, resident())
		}
	}
	took := time.Since(began).Seconds()
	after := readRuntime()
	cycles := after.cycles - before.cycles
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
	b.ReportMetric(float64(cycles), "cycles")
	b.ReportMetric((after.gcCPU-before.gcCPU)/max(1, float64(cycles)), "gc-cpu-s/cycle")
	b.ReportMetric((after.gcCPU-before.gcCPU)/took*100, "gc-%-of-a-core")
	for name, h := range map[string][2]*metrics.Float64Histogram{
		"stopping": {before.stopping, after.stopping}, "pause": {before.pauses, after.pauses},
	} {
		p50, p99, most := quantiles(h[0], h[1])
		b.ReportMetric(p50*1e6, name+"-p50-µs")
		b.ReportMetric(p99*1e6, name+"-p99-µs")
		b.ReportMetric(most*1e6, name+"-max-µs")
	}
	b.ReportMetric(float64(c.messages.Load()-messages)/took, "messages/s")
	b.ReportMetric(float64(c.pongs.Load()-pongs)/took, "pongs/s")
	b.ReportMetric(float64(c.welcomed.Load()-welcomed)/took, "reconnects/s")
	b.ReportMetric(0, "ns/op")
}

// publisher posts messages over HTTP.
type publisher struct {
	url, key string
	client   *http.Client
}

func newPublisher(b testing.TB, g *Gateway) *publisher {
	b.Helper()
	t := &http.Transport{MaxIdleConnsPerHost: 2}
	b.Cleanup(t.CloseIdleConnections)
	return &publisher{urlOf(g.PublicAddr()) + "/v1/messages", g.Dev().APIKey, &http.Client{Transport: t}}
}

func (p *publisher) publish(b testing.TB, body string) {
	b.Helper()
	if !json.Valid([]byte(body)) {
		b.Fatalf("%s is no JSON", body)
	}
	req, err := http.NewRequest(http.MethodPost, p.url, bytes.NewReader([]byte(body)))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		b.Fatalf("publishing answered %d %.300s", resp.StatusCode, answer)
	}
}

// runtimeFigures are what the collector did since the process began.
type runtimeFigures struct {
	cycles           uint64
	gcCPU            float64 // seconds
	stopping, pauses *metrics.Float64Histogram
}

func readRuntime() runtimeFigures {
	s := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/sched/pauses/stopping/gc:seconds"}, {Name: "/sched/pauses/total/gc:seconds"},
	}
	metrics.Read(s)
	return runtimeFigures{s[0].Value.Uint64(), s[1].Value.Float64(), s[2].Value.Float64Histogram(), s[3].Value.Float64Histogram()}
}

// quantiles returns the upper bounds of median, 99th percentile and largest of what a histogram gained.
func quantiles(before, after *metrics.Float64Histogram) (p50, p99, most float64) {
	total := uint64(0)
	for i := range after.Counts {
		total += after.Counts[i] - before.Counts[i]
	}
	seen := uint64(0)
	for i := range after.Counts {
		n := after.Counts[i] - before.Counts[i]
		if n == 0 {
			continue
		}
		bound := after.Buckets[i+1]
		if math.IsInf(bound, 1) {
			bound = after.Buckets[i]
		}
		if seen*2 < total {
			p50 = bound
		}
		if seen*100 < total*99 {
			p99 = bound
		}
		seen += n
		most = bound
	}
	return p50, p99, most
}
