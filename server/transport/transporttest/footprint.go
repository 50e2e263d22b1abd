package transporttest

import (
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// Idle measures what n connections cost that do nothing. dial opens some, and returns their far ends once they stand. Idle
// reports, in bytes for each of them, resident memory right away and after two collections, heap and stacks; unit says what
// they are. It returns the far ends, which are the caller's to close.
func Idle(b *testing.B, n int, unit string, dial func(n int) []End) []End {
	b.Helper()
	ends := dial(500) // what the first ones cost is not a connection's
	before := memory(b, true)
	ends = append(ends, dial(n)...)
	dirty, clean := memory(b, false), memory(b, true)
	report := func(name string, bytes int64) { b.ReportMetric(float64(bytes)/float64(n), name+"-B/"+unit) }
	report("rss", dirty.resident-before.resident)
	report("rss-after-gc", clean.resident-before.resident)
	report("heap", clean.heap-before.heap)
	report("stack", clean.stacks-before.stacks)
	return ends
}

// DialBare connects n clients that have sent one request each, and are bare ([Bare]).
func DialBare(b *testing.B, addr, request string, n int) []End {
	b.Helper()
	var ends []End
	for range n {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Write([]byte(request)); err != nil {
			b.Fatal(err)
		}
		ends = append(ends, Bare(b, nc))
	}
	return ends
}

type footprint struct{ resident, heap, stacks int64 }

// memory returns what the process holds; resident memory is 0 where the system does not say.
func memory(b *testing.B, collect bool) footprint {
	b.Helper()
	if collect {
		runtime.GC()
		runtime.GC()
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f := footprint{heap: int64(m.HeapAlloc), stacks: int64(m.StackInuse)}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		f.resident = pages * int64(os.Getpagesize())
	}
	return f
}
