package torture

import (
	"cmp"
	"fmt"
	"time"

	"carillon/server/redistest"
)

// Form says what the gateway stands on.
type Form string

// The forms.
const (
	Embedded   Form = "embedded"   // one node on its own files
	Standalone Form = "standalone" // three rooms and two centers on one Redis
	Sentinel   Form = "sentinel"   // the same on a primary with two replicas and three sentinels
	Cluster    Form = "cluster"    // the same on three masters, each with a replica
)

// Durability is the value of redis.durability. Only that of Replicated outlives a failover.
type Durability string

// The durabilities.
const (
	Process    Durability = "process"
	Replicated Durability = "replicated"
)

// Config says what is tormented, and how long.
type Config struct {
	Binary     string        // of carillon
	Form       Form          // Standalone
	Durability Durability    // Replicated where there are replicas, Process elsewhere
	Length     time.Duration // of the faults; setting up and coming to rest take their time besides
	Seed       uint64
	Senders    int           // 6
	Users      int           // 8, each with two devices
	Pause      time.Duration // of a sender between two messages, about; 20 ms
	Dir        string        // for histories and data; it exists
	Env        []string      // more of every node's environment
	Say        func(string)  // told what happens; may be nil
}

func (c Config) withDefaults() (Config, error) {
	c.Form = cmp.Or(c.Form, Standalone)
	c.Senders, c.Users, c.Pause = cmp.Or(c.Senders, 6), cmp.Or(c.Users, 8), cmp.Or(c.Pause, 20*time.Millisecond)
	if c.Say == nil {
		c.Say = func(string) {}
	}
	switch c.Form {
	case Embedded, Standalone:
		if c.Durability = cmp.Or(c.Durability, Process); c.Durability != Process {
			return c, fmt.Errorf("torture: %s has no replicas", c.Form)
		}
	case Sentinel, Cluster:
		c.Durability = cmp.Or(c.Durability, Replicated)
	default:
		return c, fmt.Errorf("torture: there is no form %q; there are embedded, standalone, sentinel and cluster", c.Form)
	}
	if c.Durability != Process && c.Durability != Replicated {
		return c, fmt.Errorf("torture: durability %q is not tormented; process and replicated are", c.Durability)
	}
	if c.Length <= 0 {
		return c, fmt.Errorf("torture: a run of %v breaks nothing", c.Length)
	}
	return c, nil
}

// replicas is how many replicas have a message before it is accepted: all that may be promoted.
func (c Config) replicas() int {
	switch {
	case c.Durability != Replicated:
		return 0
	case c.Form == Sentinel:
		return 2
	}
	return 1
}

// redis is the form in the words of the kit.
func (c Config) redis() redistest.Form { return redistest.Form(c.Form) }
