package center

import (
	"carillon/server/catalog"
	adminapi "carillon/server/center/api/admin"
	"carillon/server/center/strictjson"
)

const (
	inAboveUsers = iota
	inApproveEveryone
)

var approvalShape = strictjson.NewShape(0, "above_users", "everyone")

// readApproval reads TaskApprovalPatch: null sets the defaults, otherwise what is not said stays.
func readApproval(r *strictjson.Reader, a *catalog.Approval) {
	if r.Null() {
		*a = catalog.Approval{}
		return
	}
	seen, ok := r.Object(approvalShape, func(i int) {
		switch i {
		case inAboveUsers:
			if r.Null() {
				a.Above = -1
				return
			}
			n, _ := r.Int(1, 1e9)
			a.Above = int(n)
		case inApproveEveryone:
			v, _ := r.Bool()
			a.EveryoneFree = !v
		}
	})
	if ok && seen == 0 {
		r.Note(strictjson.TooFew, "at least one of above_users and everyone")
	}
}

func showApproval(a catalog.Approval) adminapi.TaskApproval {
	out := adminapi.TaskApproval{Everyone: !a.EveryoneFree}
	switch {
	case a.Above == 0:
		out.AboveUsers = new(catalog.DefaultApprovalAbove)
	case a.Above > 0:
		out.AboveUsers = &a.Above
	}
	return out
}
