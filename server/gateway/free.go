package gateway

import (
	"net/http"
	"runtime"
	"runtime/debug"
)

// freed is the answer of /debug/free: what the process holds once nothing is left that could be given back. In bytes, but
// for the last two.
type freed struct {
	HeapAlloc  uint64 `json:"heap_alloc"`  // live objects
	HeapInuse  uint64 `json:"heap_inuse"`  // the same, with the gaps between them
	HeapSys    uint64 `json:"heap_sys"`    // address space of the heap, with what was given back
	StackInuse uint64 `json:"stack_inuse"` // of goroutines
	Sys        uint64 `json:"sys"`
	NumGC      uint32 `json:"num_gc"`
	Goroutines int    `json:"goroutines"`
}

// serveFree gives back to the system what memory the process does not need, and says what is left. It is for
// measurements: what a session costs can be told only when garbage, and memory that the runtime keeps for later, are out of
// the picture. A second collection takes what the first only let go of: objects with finalizers, and the victims of
// sync.Pool. It stops nothing, but costs the processor time of two full collections, hence operators alone.
func (g *Gateway) serveFree(w http.ResponseWriter, _ *http.Request) {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	writeJSON(w, http.StatusOK, freed{
		HeapAlloc: m.HeapAlloc, HeapInuse: m.HeapInuse, HeapSys: m.HeapSys, StackInuse: m.StackInuse, Sys: m.Sys, NumGC: m.NumGC,
		Goroutines: runtime.NumGoroutine(),
	})
}
