"""The worker that answers the load balancer: this VM is there."""
