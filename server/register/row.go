package register

import "carillon/server/push"

// A client has one session after the other: it comes back after its connection broke, its polls come to another room than the one before, or
// an answer to one of them was lost. Each names the one before. A row is what one client had in this way without another client in between: so of a
// session whose place is taken from within its row nobody has to be told, and a newcomer from a row whose place another client took is
// the one that was replaced.
//
// A row is known by its first session. Whatever lies between that and the last one belongs to it: answers that were lost, and connects
// that were opened late, after their client had given them up and come back elsewhere.

// first returns the first session of the row.
func (s *Seat) first() push.SessionEpoch {
	if s.Row == 0 {
		return s.Epoch
	}
	return s.Row
}

// isRowOf reports whether the session of that epoch lies in the row that s is the last of.
func (s *Seat) isRowOf(e push.SessionEpoch) bool { return s.first() <= e && e <= s.Epoch }

// Succeed decides whether a session may take the place of its device's own, which counts; nil if there is none that does. It returns
// the newcomer's row. Implementations of Register call it, or do the same, before they ask [Admit].
//
// A newcomer without an epoch has in Row the session that its client names. If one that came later than that holds the place, and is of another
// row, the newcomer is refused: KindConflict, "replaced". A newcomer with an epoch, which was there before its room lost its lease, is
// refused for any later one: KindConflict, "continued" where that is of its row, "replaced" where it is not.
func Succeed(newcomer Seat, own *Seat) (row push.SessionEpoch, err error) {
	switch {
	case own == nil:
		return newcomer.Row, nil
	case newcomer.Epoch != 0 && own.Epoch <= newcomer.Epoch:
		return newcomer.Row, nil
	case newcomer.Epoch != 0 && own.isRowOf(newcomer.Epoch):
		return 0, push.Errorf(push.KindConflict, CodeContinued, "the client of this session has gone on in a newer one")
	case newcomer.Epoch == 0 && own.Epoch < newcomer.Row, newcomer.Epoch == 0 && newcomer.Row == 0:
		return newcomer.Row, nil
	case newcomer.Epoch == 0 && own.isRowOf(newcomer.Row):
		return own.first(), nil
	}
	return 0, push.Errorf(push.KindConflict, "replaced", "a newer session of this device has taken its place")
}

// CodeContinued is the code of the error of a session whose client has a newer one.
const CodeContinued = "continued"

// Continues reports whether the session for which one of that epoch has to go is one of the same client, which goes on in it: then
// nobody has to be told.
func (o *Order) Continues(e push.SessionEpoch) bool {
	return o.By.Device == o.Device && o.By.Row != 0 && o.By.Row <= e
}
