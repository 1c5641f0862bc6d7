"""Azure as the engine sees it: control plane, page blobs, snapshots, access grants.

The only package that imports the Azure SDK's management and blob clients, and the only one that knows
Azure's inclusive page ranges. It knows nothing of backup media.
"""
