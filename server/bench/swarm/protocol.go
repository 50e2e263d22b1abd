package swarm

import "time"

// Op is what a client process is told to do.
type Op string

// The operations. All are answered once, when they are done.
const (
	OpSetup   Op = "setup"   // where to connect, and as whom; comes first, once
	OpConnect Op = "connect" // connect clients From to From+Count-1, and wait until they have caught up
	OpClose   Op = "close"   // say goodbye for clients From to From+Count-1, and wait for the server's answer
	OpBegin   Op = "begin"   // forget what was counted, and count messages of a phase
	OpReport  Op = "report"  // say what was counted
)

// Command is one line to a client process.
type Command struct {
	ID int `json:"id"` // of the answer; above zero
	Op Op  `json:"op"`

	Setup *Setup `json:"setup,omitempty"`

	From   int `json:"from,omitempty"`
	Count  int `json:"count,omitempty"`
	AtOnce int `json:"at_once,omitempty"` // how many connect at the same time

	Phase    uint32   `json:"phase,omitempty"`
	Counting Counting `json:"counting,omitempty"`

	Free bool `json:"free,omitempty"` // with report: give back memory that is not needed, before it is told
}

// Counting says which news of arriving messages a phase needs.
type Counting string

// The ways to count.
const (
	CountAll  Counting = "all"  // tell of each message once all clients have it
	CountEach Counting = "each" // tell how many messages arrived, soon after they did
)

// Setup says where clients connect, and as whom.
type Setup struct {
	Transport string `json:"transport"` // one of Transports
	Address   string `json:"address"`   // IP address and port
	// HoldSeconds is how long polls ask to be held.
	HoldSeconds int    `json:"hold_seconds,omitempty"`
	Source      string `json:"source,omitempty"` // IP address to connect from; empty: the system's choice

	Product string `json:"product"`
	KeyID   string `json:"key_id"`
	Key     []byte `json:"key"`   // HS256
	Users   string `json:"users"` // what names of users begin with; their number follows
	Acks    bool   `json:"acks"`  // acknowledge persistent messages, which takes memory for each client's cursor
}

// Answer is one line from a client process: the answer to a command, or news, which has no ID.
type Answer struct {
	ID    int    `json:"id,omitempty"`
	Error string `json:"error,omitempty"`

	Done     []uint64 `json:"done,omitempty"`     // news: these messages have reached all clients of the process
	Received uint64   `json:"received,omitempty"` // news: so many messages more arrived
	Open     int      `json:"open,omitempty"`     // news: so many clients are connected, while some are being connected or closed

	Report *Report `json:"report,omitempty"`
}

// Report is what a client process counted. Of several, the sums.
type Report struct {
	Open     int            `json:"open"`     // clients that stand now
	Welcomed int            `json:"welcomed"` // by this connect
	CaughtUp int            `json:"caught_up"`
	Failed   map[string]int `json:"failed,omitempty"` // by this connect, why
	Lost     map[string]int `json:"lost,omitempty"`   // clients that stood and were closed, why; since setup

	Messages uint64  `json:"messages"` // of the phase, since begin
	Others   uint64  `json:"others"`   // messages of no phase, or of an earlier one
	Pings    uint64  `json:"pings"`    // since begin, of clients or, where those cannot speak, of the server
	Pongs    uint64  `json:"pongs"`
	Acks     uint64  `json:"acks"`
	Gaps     uint64  `json:"gaps"`
	Reads    uint64  `json:"reads"`   // system calls that brought something
	Latency  Latency `json:"latency"` // of messages, or, in the answer to a connect, from connect(2) to welcome

	CPU time.Duration `json:"cpu_ns"` // of the process, since it began
	RSS int64         `json:"rss"`    // of the process
}

func (r *Report) merge(o *Report) {
	r.Open += o.Open
	r.Welcomed += o.Welcomed
	r.CaughtUp += o.CaughtUp
	r.Failed = mergeCounts(r.Failed, o.Failed)
	r.Lost = mergeCounts(r.Lost, o.Lost)
	r.Messages += o.Messages
	r.Others += o.Others
	r.Pings += o.Pings
	r.Pongs += o.Pongs
	r.Acks += o.Acks
	r.Gaps += o.Gaps
	r.Reads += o.Reads
	r.Latency.Merge(o.Latency)
	r.CPU += o.CPU
	r.RSS += o.RSS
}

func mergeCounts(a, b map[string]int) map[string]int {
	for why, n := range b {
		if a == nil {
			a = make(map[string]int)
		}
		a[why] += n
	}
	return a
}
