package admission

import "time"

// refusals say who is still told that it is refused. An answer costs a whole request, so there is a budget of them: one of the
// node, and one of each address for what that address did itself. Whoever comes beyond it is not read at all.
//
// A refusal for the node's sake uses up nothing of its address: behind it may live thousands who know nothing of each other, and
// come back as one after the node was away. They are marked, and as long as the node has no answers left those with a mark
// are not heard, whatever they are, as often as they come: what answers there are go to the addresses in the proportion in
// which these connect. Whoever was not refused lately is always heard. It may be a product's server.
type refusals struct {
	// Static after construction.
	node, address pace // zero: no bound

	all   bucket
	mine  *rates // answers of each address, for its own doing; nil: no bound
	marks *rates // used as marks: not empty enough says refused lately; nil: no bound of the node
}

// answersBurst is how many seconds' worth of answers are there at once.
const answersBurst = 10

// marked is how long a refusal is remembered of an address.
const marked = 10 * time.Second

func newRefusals(node, address int) *refusals {
	r := &refusals{}
	if node > 0 {
		r.node, r.marks = paceOf(node, node*answersBurst), newRates()
	}
	if address > 0 {
		r.address, r.mine = paceOf(address, address*answersBurst), newRates()
	}
	return r
}

// markPace makes a bucket a mark: one token, which is back after the time of a mark.
var markPace = pace{every: marked, whole: marked}

// note counts a refusal of an address, zero for one that is not limited; own says that it broke a limit of its own.
func (r *refusals) note(a Address, own bool, now moment) {
	if r.marks != nil {
		r.all.take(r.node, now)
		if a != 0 {
			r.marks.take(a, markPace, now)
		}
	}
	if own && a != 0 && r.mine != nil {
		r.mine.take(a, r.address, now)
	}
}

// hears reports whether an address would be answered; otherwise it returns the reason.
func (r *refusals) hears(a Address, now moment) (why closing, ok bool) {
	switch {
	case a == 0:
		return 0, true
	case r.mine != nil && r.mine.isEmpty(a, r.address, now):
		return closedDeafTo, false
	case r.marks != nil && r.all.isEmpty(r.node, now) && r.marks.isEmpty(a, markPace, now):
		return closedDeaf, false
	}
	return 0, true
}
