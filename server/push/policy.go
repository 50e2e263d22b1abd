package push

// StartAt says where a device that was never seen before begins in a slot.
type StartAt uint8

// The starts. The zero value means the default of its place.
const (
	StartDefault   StartAt = iota
	StartBeginning         // with the oldest entry still retained
	StartHead              // with what comes after it connected
)

// FirstVisit is a product's rule for new devices. The defaults: a user's first device begins at the beginning of the own
// slot, so that what was sent before anybody signed in arrives; later devices, and every device in the common slot, begin
// at the head.
type FirstVisit struct {
	First  StartAt // own slot, the user has no other device
	Later  StartAt // own slot, the user has other devices
	Common StartAt // common slot
}

// WithDefaults returns the rule with every zero field replaced by its default.
func (f FirstVisit) WithDefaults() FirstVisit {
	if f.First == StartDefault {
		f.First = StartBeginning
	}
	if f.Later == StartDefault {
		f.Later = StartHead
	}
	if f.Common == StartDefault {
		f.Common = StartHead
	}
	return f
}

// Durability is what an accepted persistent message survives.
type Durability uint8

// The durabilities, weakest first.
const (
	DurabilityNone       Durability = iota // lost with the process (the in-memory store)
	DurabilityProcess                      // survives kill -9 of every process
	DurabilityDisk                         // flushed to disk before the answer: survives power loss
	DurabilityReplicated                   // on a configured number of replicas too
)

// String returns the durability's name as the configuration writes it.
func (d Durability) String() string {
	return [...]string{"none", "process", "disk", "replicated"}[min(d, DurabilityReplicated)]
}
